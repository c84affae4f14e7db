"""Error messages are whole sentences that end with a full stop."""

import ast
from collections.abc import Iterator
from pathlib import Path

from image_analysis_common.errors import ServiceError
from image_analysis_common.startup import StartupError

ROOT = Path(__file__).parents[2]
MODULES = sorted((ROOT / "packages").glob("*/src/**/*.py"))


def subclasses(kind: type[Exception]) -> Iterator[str]:
    yield kind.__name__
    for child in kind.__subclasses__():
        yield from subclasses(child)


ERRORS = {*subclasses(ServiceError), *subclasses(StartupError)}


def sentences(module: Path) -> Iterator[tuple[int, str]]:
    """Find the messages of errors in the code; values in a message are replaced by a word."""
    for node in ast.walk(ast.parse(module.read_text())):
        match node:
            case ast.Call(func=ast.Name(id=name), args=[ast.Constant(value=str(text)), *_]) if name in ERRORS:
                yield node.lineno, text
            case ast.Call(func=ast.Name(id=name), args=[ast.JoinedStr(values=parts), *_]) if name in ERRORS:
                yield (
                    node.lineno,
                    "".join(str(part.value) if isinstance(part, ast.Constant) else "word" for part in parts),
                )


def test_every_error_ends_with_a_full_stop() -> None:
    # The client's errors begin with a code.
    found = [
        (module.name, *sentence)
        for module in MODULES
        if "image_analysis_client" not in module.parts
        for sentence in sentences(module)
    ]

    assert len(found) > 50
    assert [sentence for sentence in found if not sentence[-1].endswith((".", "word"))] == []
