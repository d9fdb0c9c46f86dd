"""Wild card patterns of C-FIND keys (PS3.4 C.2.2.2.4): what is literal in them, and what is not."""

import enum
import re
from dataclasses import dataclass
from functools import cached_property
from typing import Self

from thinfilm_gateway.index.folding import GROUPS, fold

_WILD = re.compile(r"([*?])")
_SPACES = re.compile(r"\s+")


class Wild(enum.Enum):
    """A wild card."""

    ANY = "*"  # any characters, also none
    ONE = "?"  # exactly one character


@dataclass(frozen=True)
class Pattern:
    """Literal text and wild cards, in turn."""

    tokens: tuple[str | Wild, ...]

    @classmethod
    def parse(cls, value: str) -> Self:
        """Read a key's value: `*` and `?` are wild cards, all else is literal."""
        return cls.of([Wild(part) if part in ("*", "?") else part for part in _WILD.split(value)])

    @classmethod
    def of(cls, tokens: list[str | Wild]) -> Self:
        """Join neighbouring literals and drop wild cards that add nothing."""
        joined: list[str | Wild] = []
        for token in tokens:
            if token == "" or (token is Wild.ANY and joined and joined[-1] is Wild.ANY):
                continue
            if isinstance(token, str) and joined and isinstance(joined[-1], str):
                joined[-1] += token
            else:
                joined.append(token)
        return cls(tuple(joined))

    @property
    def is_universal(self) -> bool:
        """Whether everything matches, the missing value too."""
        return self.tokens == (Wild.ANY,)

    @property
    def is_literal(self) -> bool:
        """Whether there is no wild card."""
        return all(isinstance(token, str) for token in self.tokens)

    @cached_property
    def prefix(self) -> str:
        """The literal text before the first wild card."""
        return self.tokens[0] if self.tokens and isinstance(self.tokens[0], str) else ""

    def to_glob(self) -> str:
        """Return the pattern for SQLite's GLOB."""
        return "".join(
            token.value if isinstance(token, Wild) else re.sub(r"[\[*?]", r"[\g<0>]", token) for token in self.tokens
        )

    def to_like(self) -> str:
        """Return the pattern for PostgreSQL's LIKE."""
        wild = {Wild.ANY: "%", Wild.ONE: "_"}
        return "".join(
            wild[token] if isinstance(token, Wild) else re.sub(r"[\\%_]", r"\\\g<0>", token) for token in self.tokens
        )


def folded_pattern(value: str) -> Pattern:
    """Read a key's value whose literal parts are folded as folding.py folds text."""
    tokens = Pattern.parse(value).tokens
    return Pattern.of([token if isinstance(token, Wild) else fold(token) for token in tokens])


def name_patterns(value: str) -> list[list[Pattern]]:
    """Read the key of a person name: for each of its component groups, the patterns of which one must match.

    An empty list stands for universal matching. The patterns are folded as folding.py folds names.
    """
    return [_group_patterns(group) for group in value.split("=", GROUPS - 1)]


def _group_patterns(group: str) -> list[Pattern]:
    """Fold a component group; `DOE^*` gives `doe` too, since components that are missing at the end are empty ones."""
    components = [_component_tokens(component) for component in group.rstrip("^ ").split("^")]
    needed = components[:]
    while needed and needed[-1] == [Wild.ANY]:
        needed.pop()
    if not needed:
        return []
    patterns = [] if len(needed) == len(components) else [_joined([*needed, [Wild.ANY]])]
    while needed and not needed[-1]:
        needed.pop()
    return [_joined(needed), *patterns] if needed else patterns


def _component_tokens(component: str) -> list[str | Wild]:
    """Fold the literal parts of a component; spaces at its ends mean nothing."""
    parts = _WILD.split(component)
    parts[0] = parts[0].lstrip()
    parts[-1] = parts[-1].rstrip()
    tokens = [Wild(part) if part in ("*", "?") else _SPACES.sub(" ", fold(part)) for part in parts]
    return list(Pattern.of(tokens).tokens)


def _joined(components: list[list[str | Wild]]) -> Pattern:
    tokens: list[str | Wild] = []
    for place, component in enumerate(components):
        tokens += ["^", *component] if place else component
    return Pattern.of(tokens)
