"""The few changes that the engine's bytes need on their way to a client, made on the bytes themselves. Pure.

No pattern here can match inside of a text: there its quotes would be escaped.
"""

from __future__ import annotations

#: Members that vLLM writes as null and OpenAI's schema does not allow to be.
_NULLS = (
    b',"annotations":null',
    b',"function_call":null',
    b',"prompt_tokens_details":null',
    b',"completion_tokens_details":null',
)
#: OpenAI's log-probabilities always have both members.
LOGPROBS, _LOGPROBS_WHOLE = b'"logprobs":{"content":', b'"logprobs":{"refusal":null,"content":'
_FINGERPRINT = b'"system_fingerprint":"'


def tidied(body: bytes) -> bytes:
    """An answer in one piece without the nulls that no OpenAI client expects."""
    for null in _NULLS:
        body = body.replace(null, b"")
    return with_refusal(body)


def with_refusal(data: bytes) -> bytes:
    """Log-probabilities with the `refusal` member that vLLM leaves out."""
    return data.replace(LOGPROBS, _LOGPROBS_WHOLE)


def stamped(data: bytes, fingerprint: bytes) -> bytes:
    """`data` with the engine's system fingerprint replaced by ours, which names the base and the adapter."""
    at = data.rfind(_FINGERPRINT)
    if at < 0:
        return data
    at += len(_FINGERPRINT)
    end = data.find(b'"', at)
    return data[:at] + fingerprint + data[end:] if end > 0 else data
