"""The smoke test: a few questions, and whether the answers are answers."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import msgspec

from bundler.common.broken import BROKEN_JSON
from bundler.errors import ServeError

if TYPE_CHECKING:
    from collections.abc import Callable

    from bundler.model import Smoke
    from bundler.serve.client import Client

SAID = 60
"""Characters of an answer that are shown."""

WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Get the current weather of a city.",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string", "description": "The city's name."}},
            "required": ["city"],
        },
    },
}


RED_SQUARE = (
    "data:image/png;base64,"
    "iVBORw0KGgoAAAANSUhEUgAAAEAAAABACAIAAAAlC+aJAAAAT0lEQVR42u3PQQkAAAgEsEty/aMYywi+hcEKLNO+FgEBAQEBAQEB"
    "AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQGBywLKp0DxvxLbjwAAAABJRU5ErkJggg=="
)
"""64 × 64 pixels of one colour, as PNG."""


class SmokeResult(msgspec.Struct, frozen=True, kw_only=True):
    """One question's outcome."""

    check: str
    """``models``, ``chat``, ``tool call``, ``reasoning``, ``image``."""
    passed: bool
    seconds: float
    seen: str
    """The answer's beginning, or what was wrong with it."""


def smoke(client: Client, served_name: str, wanted: Smoke) -> list[SmokeResult]:
    """Ask a server, by its model's served name, everything that the model's manifest says it does."""
    checks: dict[str, tuple[bool, Callable[[Client, str], str]]] = {
        "models": (True, check_models),
        "chat": (True, check_chat),
        "tool call": (wanted.tools, check_tool),
        "reasoning": (wanted.reasoning, check_reasoning),
        "image": (wanted.image, check_image),
    }
    return [_timed(name, check, client, served_name) for name, (asked, check) in checks.items() if asked]


def check_models(client: Client, served_name: str) -> str:
    """``/v1/models`` lists the served name, or ServeError is raised."""
    listed = client.get("/v1/models")
    rows = listed.get("data") if isinstance(listed, dict) else None
    names = [str(row.get("id")) for row in rows or [] if isinstance(row, dict)]
    if served_name not in names:
        raise ServeError(f"/v1/models lists {', '.join(names) or 'nothing'}, not {served_name}")
    return ", ".join(names)


def check_chat(client: Client, served_name: str) -> str:
    """A chat is answered with text, or ServeError is raised."""
    message = _chat(client, served_name, "Say hi in one short sentence.", max_tokens=64)
    # A model that thinks first may spend all of so few tokens on that.
    return _text(message, "content", "reasoning_content")


def check_tool(client: Client, served_name: str) -> str:
    """A question that needs a tool is answered by a right call of it, or ServeError is raised."""
    question = "What is the weather in Paris right now? Use the tool."
    message = _chat(client, served_name, question, max_tokens=1024, tools=[WEATHER], tool_choice="auto")
    calls = message.get("tool_calls") or []
    if not calls:
        raise ServeError(f"no tool was called; the answer: {str(message.get('content'))[:SAID]!r}")
    function = calls[0].get("function") or {}
    try:
        arguments = msgspec.json.decode(function.get("arguments") or "")
    except BROKEN_JSON as problem:
        raise ServeError(f"the call's arguments are no JSON: {function.get('arguments')!r}") from problem
    if function.get("name") != "get_weather" or not isinstance(arguments, dict) or "city" not in arguments:
        raise ServeError(f"a wrong call: {function.get('name')}({arguments})")
    return f"get_weather({arguments['city']!r})"


def check_reasoning(client: Client, served_name: str) -> str:
    """A question to think about is answered with thoughts and, apart, an answer, or ServeError is raised."""
    message = _chat(client, served_name, "What is 17 times 23? Think first.", max_tokens=2048)
    thoughts = _text(message, "reasoning_content")
    answer = _text(message, "content")
    return f"thought: {thoughts[:20]!r}; {answer}"


def check_image(client: Client, served_name: str) -> str:
    """A question about an image is answered with text, or ServeError is raised."""
    content = [
        {"type": "image_url", "image_url": {"url": RED_SQUARE}},
        {"type": "text", "text": "Which colour is this square? One word."},
    ]
    return _text(_chat(client, served_name, content, max_tokens=32), "content")


def table(results: list[SmokeResult]) -> list[str]:
    """Return the results as lines of a table."""
    width = max(len(result.check) for result in results)
    return [
        f"{'ok  ' if one.passed else 'FAIL'} {one.check:<{width}}  {one.seconds:6.1f} s  {one.seen}"
        for one in results
    ]


def _timed(name: str, check: Callable[[Client, str], str], client: Client, served_name: str) -> SmokeResult:
    began = time.monotonic()
    try:
        seen, passed = check(client, served_name), True
    except ServeError as problem:
        seen, passed = problem.what, False
    except (AttributeError, KeyError, TypeError, IndexError) as problem:
        seen, passed = f"an answer of another shape: {type(problem).__name__}: {problem}", False
    return SmokeResult(check=name, passed=passed, seconds=round(time.monotonic() - began, 2), seen=seen)


def _chat(client: Client, served_name: str, content: Any, **settings: Any) -> dict[str, Any]:
    body = {"model": served_name, "messages": [{"role": "user", "content": content}], **settings}
    message: dict[str, Any] = client.post("/v1/chat/completions", body)["choices"][0]["message"]
    return message


def _text(message: dict[str, Any], *fields: str) -> str:
    """Return the beginning of the first field that holds text."""
    for field in fields:
        value = message.get(field)
        if isinstance(value, str) and value.strip():
            return repr(value.strip()[:SAID])
    raise ServeError(f"the answer has no {' and no '.join(fields)}")
