"""The fast kernels against transformers' own."""

from __future__ import annotations

import copy

import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from peft_instruct.model import kernels
from peft_instruct.model.gelu import GELUTanh
from peft_instruct.model.kernels import use_fast_kernels


def gpt2() -> PreTrainedModel:
    torch.manual_seed(0)
    return GPT2LMHeadModel(
        GPT2Config(vocab_size=64, n_embd=64, n_layer=2, n_head=4, n_positions=256, bos_token_id=0, eos_token_id=0)
    ).eval()


def grouped_llama() -> PreTrainedModel:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=64, hidden_size=64, intermediate_size=96, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=256,
    )  # fmt: skip
    return LlamaForCausalLM(config).eval()


def fast(model: PreTrainedModel) -> PreTrainedModel:
    other = copy.deepcopy(model)
    use_fast_kernels(other)
    assert other.config._attn_implementation == kernels.ATTENTION
    return other


@pytest.fixture
def padded() -> tuple[torch.Tensor, torch.Tensor]:
    """ids and mask, (3, 50): one row padded on the left, one on the right, one whole."""
    torch.manual_seed(1)
    mask = torch.ones(3, 50, dtype=torch.long)
    mask[0, :20] = 0
    mask[1, 40:] = 0
    return torch.randint(0, 64, (3, 50)), mask


@pytest.mark.parametrize("make", [gpt2, grouped_llama])
@pytest.mark.parametrize("longest", [192, 10])
def test_logits_and_gradients_equal_those_of_sdpa(make, longest, padded, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    """On both sides of the length at which the way changes; fp32."""
    monkeypatch.setattr(kernels, "LONGEST_PLAIN", {torch.float32: longest})
    plain = make()
    quick = fast(plain)
    ids, mask = padded
    results = []
    for model in (plain, quick):
        logits = model(input_ids=ids, attention_mask=mask).logits * mask[..., None]
        logits.square().sum().backward()
        results.append((logits, {name: p.grad for name, p in model.named_parameters()}))
    (logits, gradients), (quick_logits, quick_gradients) = results
    assert (logits - quick_logits).abs().max() <= 1e-5 * logits.abs().max()
    for name, gradient in gradients.items():
        assert (gradient - quick_gradients[name]).norm() <= 1e-5 * max(1e-3, float(gradient.norm())), name


@pytest.mark.parametrize("scaling", [None, 0.3])
@pytest.mark.parametrize("longest", [192, 5], ids=["plain products", "torch's own"])
@pytest.mark.parametrize("num_queries", [1, 4, 9])
@pytest.mark.parametrize("kind", ["no mask", "Boolean", "added"])
def test_attention_is_that_of_sdpa_for_every_mask_scale_and_length(
    kind: str, num_queries: int, longest: int, scaling: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fewer queries than keys: the others are in a cache."""
    monkeypatch.setattr(kernels, "LONGEST_PLAIN", {torch.float32: longest})
    torch.manual_seed(0)
    query, key, value = torch.randn(2, 3, num_queries, 8), torch.randn(2, 3, 9, 8), torch.randn(2, 3, 9, 8)
    allowed = torch.rand(2, 1, num_queries, 9) < 0.7
    allowed[..., 0] = True
    added = torch.where(allowed, torch.randn(allowed.shape), torch.tensor(float("-inf")))
    mask = {"no mask": None, "Boolean": allowed, "added": added}[kind]
    found, _ = kernels.attention_for_length(torch.nn.Module(), query, key, value, mask, scaling=scaling)
    expected, _ = sdpa_attention_forward(torch.nn.Module(), query, key, value, mask, scaling=scaling)
    torch.testing.assert_close(found, expected)


def test_off_the_cpu_and_where_it_is_not_asked_for_attention_stays_as_it_is() -> None:
    for model, asked in ((gpt2().to("meta"), True), (gpt2(), False)):
        use_fast_kernels(model, attention=asked)
        assert model.config._attn_implementation == "sdpa"
        assert {type(block.mlp.act).__name__ for block in model.transformer.h} == {"GELUTanh"}


def test_without_a_mask_attention_is_causal() -> None:
    model = fast(gpt2())
    ids = torch.randint(0, 64, (2, 30))
    changed = ids.clone()
    changed[:, -1] = (changed[:, -1] + 1) % 64
    with torch.no_grad():
        assert model(input_ids=ids).logits[:, :-1].equal(model(input_ids=changed).logits[:, :-1])


@pytest.mark.parametrize("longest", [192, 10], ids=["plain products", "torch's own"])
def test_dropout_of_attention_drops_and_keeps_the_mean(longest: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernels, "LONGEST_PLAIN", {torch.float32: longest})
    torch.manual_seed(0)
    query, key, value = (torch.randn(2, 3, 20, 8) for _ in range(3))
    exact, _ = kernels.attention_for_length(torch.nn.Module(), query, key, value, None)
    noisy = torch.stack(
        [kernels.attention_for_length(torch.nn.Module(), query, key, value, None, dropout=0.2)[0] for _ in range(2000)]
    )
    assert not noisy[0].allclose(exact)
    error = noisy.std(0) / 2000**0.5
    assert ((noisy.mean(0) - exact).abs() <= 6 * error + 1e-6).all()


def test_generation_is_the_same_text(padded) -> None:  # type: ignore[no-untyped-def]
    ids, mask = padded
    ids, mask = ids[[0, 2]], mask[[0, 2]]
    plain = gpt2()
    texts = [
        model.generate(ids, attention_mask=mask, max_new_tokens=10, do_sample=False, pad_token_id=0)
        for model in (plain, fast(plain))
    ]
    assert texts[0].equal(texts[1])


@pytest.mark.parametrize("activation", ["gelu_new", "gelu_pytorch_tanh"])
def test_gelu_s_tanh_form_is_ours_however_it_is_spelled(activation: str) -> None:
    model = GPT2LMHeadModel(GPT2Config(vocab_size=8, n_embd=8, n_layer=1, n_head=1, activation_function=activation))
    use_fast_kernels(model)
    assert type(model.transformer.h[0].mlp.act) is GELUTanh


def test_nothing_of_it_is_saved(tmp_path) -> None:  # type: ignore[no-untyped-def]
    fast(gpt2()).save_pretrained(tmp_path)
    assert "peft_instruct" not in (tmp_path / "config.json").read_text(encoding="utf-8")
    assert GPT2LMHeadModel.from_pretrained(tmp_path).config._attn_implementation == "sdpa"
