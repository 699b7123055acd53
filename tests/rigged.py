"""A GPT-2 whose next token is a function of the last one, so that what it generates is known without running it."""

from __future__ import annotations

from typing import Any


def chain_model(tokenizer: Any, chain: dict[int, int], *, positions: int = 64) -> Any:
    """A model that follows `chain` greedily; a token outside of it is followed by itself.

    Embeddings are one-hot and every block adds nothing, so the head sees the last token alone and holds the chain.
    """
    import torch
    from transformers import GPT2Config, GPT2LMHeadModel

    num_tokens = len(tokenizer)
    config = GPT2Config(
        vocab_size=num_tokens,
        n_positions=positions,
        n_embd=num_tokens,
        n_layer=1,
        n_head=1,
        tie_word_embeddings=False,
        bos_token_id=tokenizer.eos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    model = GPT2LMHeadModel(config)
    with torch.no_grad():
        for weights in model.parameters():
            weights.zero_()
        model.transformer.ln_f.weight.fill_(1.0)
        model.transformer.wte.weight.copy_(torch.eye(num_tokens))
        for token in range(num_tokens):
            model.lm_head.weight[chain.get(token, token), token] = 1.0
    return model.eval()


def byte_ids(tokenizer: Any, text: str) -> list[int]:
    """The ids of single bytes, as a byte-level BPE that merges nothing would give them."""
    from transformers.convert_slow_tokenizer import bytes_to_unicode

    names = bytes_to_unicode()
    return [tokenizer.convert_tokens_to_ids(names[byte]) for byte in text.encode("utf-8")]


def chain_of(tokenizer: Any, start: str, text: str, *, stops: bool = True) -> dict[int, int]:
    """The chain that continues the one-byte prompt `start` with `text`; no byte may stand twice in the two."""
    path = byte_ids(tokenizer, start + text)
    assert len(set(path)) == len(path)
    end = tokenizer.eos_token_id if stops else path[-2]
    return dict(zip(path, [*path[1:], end], strict=True))
