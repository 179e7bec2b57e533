"""Prompts of others run in a sandbox: they reach no object of Python's, and their loops and texts have limits."""

import re
from collections.abc import Callable
from typing import Any

from jinja2 import StrictUndefined, nodes
from jinja2.runtime import Context
from jinja2.sandbox import ImmutableSandboxedEnvironment, SecurityError
from jinja2.visitor import NodeTransformer

MOST_WORK = 5_000_000
"""Characters that one prompt may make, those of its intermediate texts included; a round of a loop counts as 20."""

MOST_DIGITS = 1000
"""Most digits of a whole number."""

_STRETCHING = ("center", "ljust", "rjust", "zfill", "expandtabs", "translate", "format", "format_map", "to_bytes")
"""Methods that make a long text or number out of a short one."""

_SIZED = ("center", "indent", "batch", "slice", "round", "tojson")
"""Filters with an argument that says how long the result is."""

_WIDE = re.compile(r"\*|\d{5}")


class _Counted(NodeTransformer):
    """Counts rounds of loops and calls of macros, with the fixed text in each; and joins texts by a call."""

    def _with_count(self, node: Any) -> Any:
        size = sum(len(data.data) for data in node.find_all(nodes.TemplateData))
        count = nodes.Call(nodes.EnvironmentAttribute("spend"), [nodes.Const(20 + size)], [], None, None)
        self.generic_visit(node)
        node.body.insert(0, nodes.ExprStmt(count, lineno=node.lineno).set_lineno(node.lineno))
        return node

    visit_For = visit_Macro = visit_CallBlock = _with_count

    def visit_Concat(self, node: Any) -> Any:
        self.generic_visit(node)
        call = nodes.Call(nodes.EnvironmentAttribute("joined"), node.nodes, [], None, None)
        return call.set_lineno(node.lineno).set_environment(node.environment)


class PromptEnvironment(ImmutableSandboxedEnvironment):
    """Jinja's sandbox, with a limit on what one rendering makes; ``begin`` starts the count anew.

    Raises:
        SecurityError: on rendering, where a template goes beyond a limit or reaches for what is not its own.
    """

    intercepted_binops = frozenset({"+", "*", "**", "%"})

    def __init__(self) -> None:
        super().__init__(undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, finalize=self.measured)
        self.globals.pop("lipsum", None)  # makes texts of any length
        for name, filter_of in list(self.filters.items()):
            self.filters[name] = self._limited(name, filter_of)
        self.begin()

    def begin(self) -> None:
        self.left = MOST_WORK

    def spend(self, amount: int) -> str:
        self.left -= amount
        if self.left < 0:
            raise SecurityError(f"makes more than {MOST_WORK} characters, or loops for too long")
        return ""

    def measured(self, value: Any) -> Any:
        """A value, its length counted."""
        if isinstance(value, int) and value.bit_length() > 3.3 * MOST_DIGITS:
            raise SecurityError(f"makes a number of more than {MOST_DIGITS} digits")
        if isinstance(value, (str, list, tuple, dict)):
            self.spend(len(value))
        return value

    def joined(self, *parts: Any) -> str:
        return str(self.measured("".join(map(str, map(self.measured, parts)))))

    def _limited(self, name: str, filter_of: Callable[..., Any]) -> Callable[..., Any]:
        def limited(*args: Any, **own: Any) -> Any:
            plain = [arg for arg in args if not isinstance(arg, Context)]
            sizes = [*plain[1:], *own.values()] if name in _SIZED else []
            if any(isinstance(size, int) and abs(size) > 1000 for size in sizes):
                raise SecurityError(f"filter {name} with a size beyond 1000")
            if name == "format" and _WIDE.search(str(plain[0])):
                raise SecurityError("filter format with a wide field")
            if name in ("replace", "join"):
                self._check_growth(plain)
            return self.measured(filter_of(*args, **own))

        limited.__dict__.update(getattr(filter_of, "__dict__", {}))  # how Jinja passes its context
        return limited

    def _check_growth(self, args: Any) -> None:
        longest = max((len(arg) for arg in args[1:] if isinstance(arg, str)), default=0)
        self.spend(longest * (len(args[0]) + 1 if hasattr(args[0], "__len__") else 1))

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        is_stretching = isinstance(obj, (str, bytes, int)) and attr in _STRETCHING
        return not is_stretching and super().is_safe_attribute(obj, attr, value)

    def call(__self, __context: Context, __obj: Any, *args: Any, **kwargs: Any) -> Any:
        owner = getattr(__obj, "__self__", None)
        if isinstance(owner, str) and getattr(__obj, "__name__", "") in ("replace", "join"):
            __self._check_growth([owner, *args] if __obj.__name__ == "replace" else [*args, owner])
        return __self.measured(super().call(__context, __obj, *args, **kwargs))

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        if operator == "*":
            for one, other in ((left, right), (right, left)):
                if hasattr(one, "__len__") and isinstance(other, int):
                    self.spend(len(one) * max(0, other))
        is_power = operator == "**" and isinstance(left, int) and isinstance(right, int)
        if is_power and left.bit_length() * max(0, right) > 3.3 * MOST_DIGITS:
            raise SecurityError(f"makes a number of more than {MOST_DIGITS} digits")
        if operator == "%" and isinstance(left, str) and _WIDE.search(left):
            raise SecurityError("% with a wide field")
        return self.measured(super().call_binop(context, operator, left, right))

    def _generate(self, source: nodes.Template, *args: Any, **own: Any) -> str:
        return super()._generate(_Counted().visit(source), *args, **own)
