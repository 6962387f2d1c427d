"""Draw docs/state_machine.md's diagram and table from the declared transitions, or compare them with the file."""

from management_service.domain.statuses import FINAL, TRANSITIONS, TaskEvent, TaskStatus
from tools.generated_page import keep


def drawing() -> str:
    """The part of the page that follows from the transitions: a Mermaid diagram, then the same as a table."""
    ordered = sorted(TRANSITIONS, key=lambda t: (t.source is not None, _order(t.source), _order(t.target), t.event))
    edges: dict[tuple[str, str], list[str]] = {}
    for transition in ordered:
        key = (transition.source or "[*]", transition.target)
        edges.setdefault(key, []).append(transition.event)
    lines = ["```mermaid", "stateDiagram-v2"]
    lines += [f"    {source} --> {target}: {', '.join(events)}" for (source, target), events in edges.items()]
    lines += [f"    {status} --> [*]" for status in TaskStatus if status in FINAL]
    lines += ["```", "", "| event | from | to |", "|---|---|---|"]
    for event in TaskEvent:
        pairs = [t for t in ordered if t.event is event]
        sources = ", ".join(dict.fromkeys(f"`{t.source}`" if t.source else "–" for t in pairs))
        targets = ", ".join(dict.fromkeys(f"`{t.target}`" for t in pairs))
        lines.append(f"| `{event}` | {sources} | {targets} |")
    return "\n".join(lines)


def _order(status: TaskStatus | None) -> int:
    return -1 if status is None else list(TaskStatus).index(status)


if __name__ == "__main__":
    keep("state_machine.md", drawing, about=__doc__)
