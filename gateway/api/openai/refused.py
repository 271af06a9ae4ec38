"""Fields that are refused by name, with the reason that the caller is told."""

from __future__ import annotations

#: They reach into the engine, or nothing here can honour them.
REFUSED = {
    "cache_salt": "the gateway sets it, so that tenants and versions never share cached work.",
    "chat_template": "the base's own template is always used.",
    "chat_template_kwargs": "the base's own template is always used.",
    "documents": "put them into the messages.",
    "function_call": "use `tool_choice`.",
    "functions": "use `tools`.",
    "audio": "this gateway answers with text only.",
    "prediction": "the engine has no predicted outputs.",
    "web_search_options": "the engine has no web search.",
    "priority": "the gateway schedules.",
    "request_id": "the gateway names requests; send an `X-Request-Id` header to name yours.",
    "mm_processor_kwargs": "it would reach into the engine.",
    "previous_response_id": "answers are not kept by the engine; send the whole conversation.",
    "background": "answers are not kept by the engine; stream instead.",
    "moderation": "guards are configured by the operator.",
}
