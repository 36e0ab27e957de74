"""The smoke test: a few questions, and whether the answers are answers."""

from __future__ import annotations

import time
from functools import partial
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
    """Ask a server everything its model is said to do.

    :param served_name: the name under which the model is asked for.
    :param wanted: what the model's manifest says may be asked.
    """
    results = [_timed("models", check_models, client, served_name)]
    for name, body in questions(wanted).items():
        results.append(_timed(name, partial(_judged, name, body), client, served_name))
    return results


def _judged(name: str, body: dict[str, Any], client: Client, served_name: str) -> str:
    return CHECKS[name](ask(client, served_name, body))


def check_models(client: Client, served_name: str) -> str:
    """``/v1/models`` lists the served name, or ServeError is raised."""
    listed = client.get("/v1/models")
    rows = listed.get("data") if isinstance(listed, dict) else None
    names = [str(row.get("id")) for row in rows or [] if isinstance(row, dict)]
    if served_name not in names:
        raise ServeError(f"/v1/models lists {', '.join(names) or 'nothing'}, not {served_name}")
    return ", ".join(names)


def questions(wanted: Smoke) -> dict[str, dict[str, Any]]:
    """Return what a model is asked, by the check's name: bodies of chats, the model's name left out.

    :param wanted: what the model's manifest says may be asked.
    """
    asked = {"chat": question("Say hi in one short sentence.", max_tokens=64)}
    if wanted.tools:
        text = "What is the weather in Paris right now? Use the tool."
        asked["tool call"] = question(text, max_tokens=1024, tools=[WEATHER], tool_choice="auto")
    if wanted.reasoning:
        asked["reasoning"] = question("What is 17 times 23? Think first.", max_tokens=2048)
    if wanted.image:
        content = [
            {"type": "image_url", "image_url": {"url": RED_SQUARE}},
            {"type": "text", "text": "Which colour is this square? One word."},
        ]
        asked["image"] = question(content, max_tokens=32)
    return asked


def question(content: Any, **settings: Any) -> dict[str, Any]:
    """Return the body of a chat with one message of the user's."""
    return {"messages": [{"role": "user", "content": content}], **settings}


def ask(client: Client, served_name: str, body: dict[str, Any]) -> dict[str, Any]:
    """Return the message that answers a chat.

    :raises ServeError: no answer, another status than 200, or no JSON.
    """
    answer = client.post("/v1/chat/completions", {"model": served_name, **body})
    message: dict[str, Any] = answer["choices"][0]["message"]
    return message


def check_chat(message: dict[str, Any]) -> str:
    """A chat is answered with text, or ServeError is raised."""
    # A model that thinks first may spend all of so few tokens on that.
    return _text(message, "content", "reasoning_content")


def check_tool(message: dict[str, Any]) -> str:
    """A question that needs a tool is answered by a right call of it, or ServeError is raised."""
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


def check_reasoning(message: dict[str, Any]) -> str:
    """A question to think about is answered with thoughts and, apart, an answer, or ServeError is raised."""
    thoughts = _text(message, "reasoning_content")
    answer = _text(message, "content")
    return f"thought: {thoughts[:20]!r}; {answer}"


def check_image(message: dict[str, Any]) -> str:
    """A question about an image is answered with text, or ServeError is raised."""
    return _text(message, "content")


CHECKS: dict[str, Callable[[dict[str, Any]], str]] = {
    "chat": check_chat,
    "tool call": check_tool,
    "reasoning": check_reasoning,
    "image": check_image,
}
"""How the answer to each question is judged."""


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


def _text(message: dict[str, Any], *fields: str) -> str:
    """Return the beginning of the first field that holds text."""
    for field in fields:
        value = message.get(field)
        if isinstance(value, str) and value.strip():
            return repr(value.strip()[:SAID])
    raise ServeError(f"the answer has no {' and no '.join(fields)}")
