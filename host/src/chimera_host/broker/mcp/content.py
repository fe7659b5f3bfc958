"""The result of an MCP tool as the text that a model reads.

Texts are joined by line breaks. What is no text (images, sound, binary resources) is named with its type and size but
left out: the models' side of this platform speaks text. A result that has only structured content is its JSON.
"""

from typing import Any

import msgspec

from chimera_host.errors import ToolFailed


def as_text(tool: str, result: dict[str, Any]) -> str:
    """The text of a result; raises what the tool says where it says that it failed."""
    content = result.get("content")
    parts = [_part(one) for one in content if isinstance(one, dict)] if isinstance(content, list) else []
    text = "\n".join(parts)
    if not parts and result.get("structuredContent") is not None:
        text = msgspec.json.encode(result["structuredContent"]).decode()
    if result.get("isError") is True:
        raise ToolFailed(f"tool {tool!r} failed: {text[:4_000] or 'it does not say why'}")
    return text


def _part(part: dict[str, Any]) -> str:
    match part.get("type"):
        case "text":
            return str(part.get("text", ""))
        case "resource":
            resource = part.get("resource")
            if isinstance(resource, dict) and isinstance(resource.get("text"), str):
                return str(resource["text"])
            held = resource if isinstance(resource, dict) else {}
            return _left_out("resource", held.get("mimeType"), held.get("blob"))
        case "resource_link":
            return f"{part.get('name', 'resource')}: {part.get('uri', '')}"
        case kind:
            return _left_out(str(kind)[:40], part.get("mimeType"), part.get("data"))


def _left_out(kind: str, media: Any, data: Any) -> str:
    size = f", {len(data) * 3 // 4} bytes" if isinstance(data, str) else ""
    return f"[{kind} {str(media or 'of unknown type')[:100]}{size}, left out]"
