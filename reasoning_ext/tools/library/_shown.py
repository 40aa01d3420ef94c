"""What the tool `python` runs in the sandbox: the code, then the value of its last expression where it has printed nothing.

Run from its source, in a folder with the code as `solution.py`.
"""

import ast
import os
import sys
import traceback

LINES = 5  # of a traceback, the last


def show() -> None:
    """Run the code; a traceback's last lines and exit code 1 where it raises."""
    with open("solution.py", encoding="utf-8") as file:
        source = file.read()
    scope = {"__name__": "__main__"}
    try:
        tree, last = ast.parse(source, "code"), None
        if tree.body and isinstance(end := tree.body[-1], ast.Expr):
            last = ast.Expression(end.value)
            tree.body.pop()
        exec(compile(tree, "code", "exec"), scope)  # noqa: S102  what a model wrote, shut in
        value = None if last is None else eval(compile(last, "code", "eval"), scope)  # noqa: S307  the same
        sys.stdout.flush()
        if value is not None and os.fstat(1).st_size == 0:
            print(value if isinstance(value, str) else repr(value))
    except SystemExit:
        raise
    except BaseException as error:
        sys.stdout.flush()
        own = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename == "code"]
        lines = "".join([*traceback.format_list(own), *traceback.format_exception_only(error)]).rstrip().split("\n")
        print("\n".join(lines[-LINES:]))
        sys.exit(1)


if __name__ == "__main__":
    show()
