"""Broken recipes and what must be said of each: the table that test_broken_recipes.py reads."""

from __future__ import annotations

from dataclasses import dataclass, field

GOOD = "model: {base: gpt2}\ndata: {train: rows.json}\n"


@dataclass(frozen=True)
class Broken:
    """One broken recipe.

    Attributes:
        content: of the recipe file.
        expected: texts that the message must hold, places (`line:column`) included.
        overrides: what is given with --set.
        beside: other files in the recipe's folder.
    """

    name: str
    content: str | bytes
    expected: tuple[str, ...]
    overrides: tuple[str, ...] = ()
    beside: dict[str, str] = field(default_factory=dict)


def _alias_bomb() -> str:
    levels = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    levels += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 9)]
    return GOOD + "\n".join(levels) + "\n"


BROKEN = (
    # Keys
    Broken("unknown key at the top", GOOD + "trainning: {epochs: 1}\n", ("r.yaml:3:1: trainning: unknown key. Did you mean `training`?",)),
    Broken("unknown key in model", "model:\n  bas: gpt2\ndata: {train: r.json}\n", ("r.yaml:2:3: model.bas: unknown key. Did you mean `base`?", "model.base: missing")),
    Broken("unknown key in method", GOOD + "method:\n  lora_rank: 8\n", ("r.yaml:4:3: method.lora_rank: unknown key.",)),
    Broken("unknown key in data", "model: {base: gpt2}\ndata:\n  train: r.json\n  max_lenght: 8\n", ("r.yaml:4:3: data.max_lenght: unknown key. Did you mean `max_length`?",)),
    Broken("unknown key in training", GOOD + "training:\n  learning_rte: 1.0e-4\n", ("r.yaml:4:3: training.learning_rte: unknown key. Did you mean `learning_rate`?",)),
    Broken("unknown key in samples", GOOD + "samples:\n  evry: 3\n", ("4:3: samples.evry: unknown key. Did you mean `every`?",)),
    Broken("unknown key in generation", GOOD + "generation:\n  temprature: 1.0\n", ("4:3: generation.temprature: unknown key. Did you mean `temperature`?",)),
    Broken("unknown key in evaluation", GOOD + "evaluation:\n  xyz: 1\n", ("4:3: evaluation.xyz: unknown key. Known here: rows, batch_size, max_new_tokens.",)),
    Broken("unknown key three levels down", GOOD + "training:\n  early_stopping:\n    patiense: 2\n", ("5:5: training.early_stopping.patiense: unknown key. Did you mean `patience`?",)),
    Broken("unknown key in architecture", "model:\n  base: starter\n  init: random\n  architecture: {layer: 2}\nmethod: {kind: full}\ndata: {train: r.json}\n", ("4:18: model.architecture.layer: unknown key. Did you mean `layers`?",)),
    Broken("unknown key in columns", "model: {base: gpt2}\ndata:\n  train: r.json\n  columns: {instructions: q}\n", ("4:13: data.columns.instructions: unknown key. Did you mean `instruction`?",)),
    Broken("unknown key in a template", "model: {base: gpt2}\ndata:\n  train: r.json\n  template:\n    promt: '{instruction}'\n", ("5:5: data.template.promt: unknown key. Did you mean `prompt`?",)),
    # types
    Broken("a number in quotes", GOOD + 'training:\n  learning_rate: "2e-4"\n', ("4:3: training.learning_rate: is '2e-4'. expected a number.",)),
    Broken("a word for a number", GOOD + "training:\n  batch_size: eight\n", ("4:3: training.batch_size: is 'eight'. expected a whole number.",)),
    Broken("a bool for a whole number", GOOD + "training:\n  batch_size: true\n", ("4:3: training.batch_size: is True. expected a whole number.",)),
    Broken("a bool for a number", GOOD + "method:\n  alpha: true\n", ("4:3: method.alpha: is True. expected a number.",)),
    Broken("a fraction for a whole number", GOOD + "method:\n  rank: 8.5\n", ("4:3: method.rank: is 8.5. expected a whole number.",)),
    Broken("a word for a bool", GOOD + "training:\n  gradient_checkpointing: 'False'\n", ("4:3: training.gradient_checkpointing: is 'False'. expected true or false.",)),
    Broken("a list for a text", "model:\n  base: [gpt2]\ndata: {train: r.json}\n", ("2:3: model.base: is ['gpt2']. expected text.",)),
    Broken("a number for a text", "model:\n  base: 7\ndata: {train: r.json}\n", ("2:3: model.base: is 7. expected text.",)),
    Broken("a text for a section", "model: gpt2\ndata: {train: r.json}\n", ("r.yaml:1:1: model: is 'gpt2'. expected a mapping of keys.",)),
    Broken("a list for a section", GOOD + "training:\n  - epochs: 1\n", ("3:1: training:", "expected a mapping of keys.")),
    Broken("an empty section", "model:\ndata: {train: r.json}\n", ("1:1: model: is empty. expected a mapping of keys.",)),
    Broken("an empty key", GOOD + "training:\n  batch_size:\n", ("4:3: training.batch_size: is empty. expected a whole number.",)),
    Broken("a number in a list of texts", GOOD + "samples:\n  instructions:\n    - Say hi.\n    - 3\n", ("6:7: samples.instructions.1: is 3. expected text.",)),
    Broken("a text for a list of texts", GOOD + "samples:\n  instructions: Say hi.\n", ("4:3: samples.instructions: is 'Say hi.'. expected a list.",)),
    Broken("empty target list", GOOD + "method:\n  targets: []\n", ("4:3: method.targets:",)),
    Broken("wrong word for targets", GOOD + "method:\n  targets: atention\n", ("4:3: method.targets: is 'atention'.", "Did you mean `attention`?")),
    Broken("number in targets", GOOD + "method:\n  targets: [c_attn, 5]\n", ("4:20: method.targets.1: is 5. expected text.",)),
    Broken("wrong word", GOOD + "training:\n  device: gpu\n", ("4:3: training.device: is 'gpu'. expected 'auto', 'cpu', 'cuda' or 'mps'.",)),
    Broken("near word", GOOD + "training:\n  schedule: cosin\n", ("4:3: training.schedule: is 'cosin'.", "Did you mean `cosine`?")),
    Broken("evaluate_every bad", GOOD + "training:\n  evaluate_every: epochs\n", ("4:3: training.evaluate_every: is 'epochs'.", "Did you mean `epoch`?")),
    Broken("evaluate_every zero", GOOD + "training:\n  evaluate_every: 0\n", ("4:3: training.evaluate_every: is 0.",)),
    Broken("a date", "model:\n  base: 2024-01-01\ndata: {train: r.json}\ntraining: {seed: 2024-01-01}\n", ("4:12: training.seed: is '2024-01-01'. expected a whole number.",)),
    Broken("a tag", GOOD + "training:\n  seed: !!python/object/apply:os.system ['true']\n", ("4:3: training.seed",)),
    Broken("binary", GOOD + "training:\n  seed: !!binary aGk=\n", ("4:3: training.seed",)),
    Broken("custom scalar tag", GOOD + "training:\n  seed: !env SEED\n", ("4:3: training.seed",)),
    Broken("set tag", GOOD + "training: !!set {epochs}\n", ("3:1: training",)),
    Broken("omap tag", GOOD + "training: !!omap [epochs: 3]\n", ("3:1: training",)),
    Broken("int-like key", GOOD + "1: 2\n", ("3:1: 1: unknown key.",)),
    Broken("list key", GOOD + "? [a, b]\n: 2\n", ("3:",)),
    Broken("null key", GOOD + "~: 2\n", ("3:1",)),
    Broken("merge key", GOOD + "x: &x {epochs: 2}\ntraining:\n  <<: *x\n", ("3:1: x: unknown key",)),
    # range
    Broken("zero", GOOD + "training:\n  max_steps: 0\n", ("4:3: training.max_steps: is 0. expected greater than or equal to 1.",)),
    Broken("negative", GOOD + "training:\n  learning_rate: -1.0e-4\n", ("4:3: training.learning_rate: is -0.0001. expected greater than 0.",)),
    Broken("nan", GOOD + "training:\n  learning_rate: .nan\n", ("4:3: training.learning_rate: is nan. expected a finite number.",)),
    Broken("inf", GOOD + "training:\n  epochs: .inf\n", ("4:3: training.epochs: is inf. expected a finite number.",)),
    Broken("dropout 1", GOOD + "method:\n  dropout: 1.0\n", ("4:3: method.dropout: is 1.0. expected less than 1.",)),
    Broken("seed too large", GOOD + "training:\n  seed: 2147483648\n", ("4:3: training.seed: is 2147483648. expected less than 2147483648.",)),
    Broken("huge int", GOOD + "training:\n  seed: " + "9" * 5000 + "\n", ("training.seed",)),
    Broken("top_p", GOOD + "generation:\n  top_p: 1.5\n", ("4:3: generation.top_p: is 1.5. expected less than or equal to 1.",)),
    Broken("name", GOOD + "name: ../evil\n", ("3:1: name: is '../evil'.",)),
    Broken("empty base", "model: {base: ''}\ndata: {train: r.json}\n", ("1:9: model.base: is ''. expected at least 1 character.",)),
    # YAML
    Broken("duplicate key", "model: {base: gpt2}\ndata: {train: r.json}\nmodel: {base: x}\n", ("r.yaml:3:1: not valid YAML: the key `model` stands twice",)),
    Broken("duplicate nested", GOOD + "training:\n  epochs: 1\n  epochs: 2\n", ("r.yaml:5:3: not valid YAML: the key `epochs` stands twice",)),
    Broken("tab", "model:\n\tbase: gpt2\n", ("r.yaml:2:1: not valid YAML",)),
    Broken("unclosed quote", 'model: {base: "gpt2}\ndata: {train: r.json}\n', ("r.yaml:", "not valid YAML")),
    Broken("unclosed bracket", "model: {base: gpt2\ndata: {train: r.json}\n", ("r.yaml:2:", "not valid YAML")),
    Broken("bad indent", "model:\n  base: gpt2\n revision: x\n", ("r.yaml:3:", "not valid YAML")),
    Broken("two docs", GOOD + "---\n" + GOOD, ("r.yaml:3:", "not valid YAML")),
    Broken("undefined alias", "model: *nowhere\n", ("r.yaml:1:8", "not valid YAML")),
    Broken("a list", "- a\n- b\n", ("r.yaml:1:1: a list. expected a mapping",)),
    Broken("a scalar", "hello\n", ("r.yaml:1:1",)),
    Broken("empty", "", ("r.yaml:1:1: nothing. expected a mapping",)),
    Broken("comments", "# x\n", ("r.yaml:1:1: nothing. expected a mapping",)),
    Broken("bom only", "\ufeff", ("r.yaml:1:1",)),
    Broken("bom and typo", "\ufeff" + GOOD + "nam: x\n", ("r.yaml:3:1: nam: unknown key. Did you mean `name`?",)),
    Broken("latin-1", "name: caf\xe9\n".encode("latin-1"), ("r.yaml:", "not UTF-8",)),
    Broken("utf-16", GOOD.encode("utf-16"), ("r.yaml", "not UTF-8")),
    Broken("nul", GOOD + "name: a\x00b\n", ("r.yaml",)),
    Broken("control", GOOD + "name: a\x07b\n", ("r.yaml",)),
    Broken("alias bomb", _alias_bomb(), ("r.yaml", "too many or too deep")),
    Broken("recursive alias", "model: &m {base: gpt2, x: *m}\ndata: {train: r.json}\n", ("r.yaml", "too")),
    Broken("deep", GOOD + "x: " + "[" * 40 + "]" * 40 + "\n", ("r.yaml",)),
    Broken("very deep", GOOD + "x: " + "[" * 5000 + "]" * 5000 + "\n", ("r.yaml",)),
    Broken("oversize", GOOD + "# " + "x" * (1 << 20) + "\n", ("r.yaml: larger than 1048576 bytes",)),
    Broken("many keys", GOOD + "".join(f"k{n}: 1\n" for n in range(300)), ("300 problems", "and 280 more")),
    # extends
    Broken("self extends", "extends: r.yaml\n", ("extends itself through r.yaml",)),
    Broken("cycle", "extends: b.yaml\n", ("extends itself through r.yaml -> b.yaml",), (), {"b.yaml": "extends: r.yaml\n"}),
    Broken("missing base", "extends: nowhere.yaml\n" + GOOD, ("r.yaml:1:1: extends: nowhere.yaml: no such recipe",)),
    Broken("extends list", "extends: [a.yaml]\n" + GOOD, ("r.yaml:1:1: extends: is ['a.yaml']. expected",)),
    Broken("extends directory", "extends: .\n" + GOOD, ("r.yaml:1:1: extends",)),
    Broken("extends empty", "extends: ''\n" + GOOD, ("r.yaml:1:1: extends",)),
    Broken("problem in base", "extends: b.yaml\ntraining: {epochs: 0}\n", ("b.yaml:1:9: model.bse: unknown key", "r.yaml:2:12: training.epochs"), (), {"b.yaml": "model: {bse: gpt2, base: gpt2}\ndata: {train: r.json}\n"}),
    Broken("base not yaml", "extends: b.yaml\n" + GOOD, ("b.yaml:1:",), (), {"b.yaml": "model: [\n"}),
    # missing
    Broken("missing model", "data: {train: r.json}\n", ("r.yaml: model: missing.",)),
    Broken("missing data", "model: {base: gpt2}\n", ("data: missing.",)),
    Broken("missing both keys", "model: {}\ndata: {}\n", ("r.yaml:1:1: model.base: missing", "r.yaml:2:1: data.train: missing")),
    Broken("empty mapping", "{}\n", ("model: missing", "data: missing")),
    # cross
    Broken("lora keys with full", GOOD + "method:\n  kind: full\n  rank: 8\n  dora: true\n", ("method: dora, rank: no effect with kind: full",)),
    Broken("quantised full", "model:\n  base: gpt2\n  quantization: nf4\nmethod: {kind: full}\ndata: {train: r.json}\n", ("r.yaml:3:3: model.quantization: a quantised base cannot be trained fully",)),
    Broken("random lora", "model:\n  base: gpt2\n  init: random\ndata: {train: r.json}\n", ("3:3: model.init: an adapter on random weights",)),
    Broken("random and quantised lora", "model:\n  base: gpt2\n  init: random\n  quantization: int8\ndata: {train: r.json}\n", ("3:3: model.init", "4:3: model.quantization: random weights are not quantised")),
    Broken("architecture w/o random", "model:\n  base: gpt2\n  architecture: {layers: 2}\ndata: {train: r.json}\n", ("3:3: model.architecture: only for init: random",)),
    Broken("width heads", "model:\n  base: gpt2\n  init: random\n  architecture: {width: 65, heads: 4}\nmethod: {kind: full}\ndata: {train: r.json}\n", ("4:3: model.architecture: width 65 is not a multiple of heads 4",)),
    Broken("packing", "model: {base: gpt2}\ndata:\n  train: r.json\n  packing: true\n", ("4:3: data.packing: joins plain documents",)),
    Broken("early stop never", GOOD + "training:\n  evaluate_every: never\n  early_stopping: {}\n", ("training: early_stopping needs a validation loss",)),
    Broken("keep best w/o validation", "model: {base: gpt2}\ndata: {train: r.json, validation_fraction: 0.0}\ntraining: {keep_best: true}\n", ("3:12: training.keep_best: needs validation rows",)),
    Broken("fractions", "model: {base: gpt2}\ndata: {train: r.json, validation_fraction: 0.5, test_fraction: 0.5}\n", ("2:24: data.validation_fraction: with test_fraction it leaves no training rows",)),
    Broken("template no field", "model: {base: gpt2}\ndata:\n  train: r.json\n  template: {prompt: 'Hi', prompt_without_input: 'Ho'}\n", ("4:3: data.template",)),
    Broken("template name", "model: {base: gpt2}\ndata:\n  train: r.json\n  template: alpacca\n", ("4:3: data.template: is 'alpacca'.", "Did you mean `alpaca`?")),
    # set
    Broken("set no equals", GOOD, ("--set training.epochs: not an assignment",), ("training.epochs",)),
    Broken("set no key", GOOD, ("--set =3: not an assignment",), ("=3",)),
    Broken("set empty part", GOOD, ("--set training..epochs=3: not an assignment",), ("training..epochs=3",)),
    Broken("set unknown", GOOD, ("--set training.epoch=3: training.epoch: unknown key. Did you mean `epochs`?",), ("training.epoch=3",)),
    Broken("set bad type", GOOD, ("--set training.epochs=many: training.epochs: is 'many'. expected a number.",), ("training.epochs=many",)),
    Broken("set bad yaml", GOOD, ("--set method.targets=[a: the value is not YAML",), ("method.targets=[a",)),
    Broken("set below scalar", GOOD, ("model.base",), ("model.base.x=3",)),
    Broken("set whole section", GOOD, ("--set training={epochs: 0}: training.epochs: is 0",), ("training={epochs: 0}",)),
    Broken("set section scalar", GOOD, ("--set training=3: training",), ("training=3",)),
    Broken("set extends", GOOD, ("extends",), ("extends=gpt2_lora",)),
    Broken("set two", GOOD, ("--set training.epochs=0: training.epochs: is 0.", "--set method.rank=0: method.rank: is 0."), ("training.epochs=0", "method.rank=0")),
    Broken("set empty value", GOOD, ("--set training.batch_size=: training.batch_size: is empty",), ("training.batch_size=",)),
    Broken("set index", GOOD + "samples: {instructions: [a]}\n", ("--set samples.instructions.0=b",), ("samples.instructions.0=b",)),
    # several
    Broken("several", "model: {base: 3}\ndata:\n  train: r.json\n  max_length: no\n  templte: plain\ntraining:\n  epochs: -1\n  device: gpu\n", ("5 problems", "1:9", "4:3", "5:3", "7:3", "8:3")),
    Broken("section errors and cross", GOOD + "method: {kind: full, rank: 8}\ntraining: {evaluate_every: never, keep_best: true}\n", ("2 problems",)),
)
