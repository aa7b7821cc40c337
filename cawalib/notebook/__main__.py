"""The command line of the strict runner.

    python -m cawalib.notebook NOTEBOOK OUT -p name value --expect FILE    run, with these parameters
    python -m cawalib.notebook --refresh NOTEBOOK ...                      renew the committed outputs

What plain papermill lets pass is an error here, with one line that says what to do. The traceback of an error that the
library foresees stands in NAME.failed.ipynb, and is shown with --traceback; that of any other one is always shown, for
whoever reads the log of a batch. Exit codes: 0 done, 1 the notebook failed, 2 the call is wrong and nothing was run,
143 terminated.
"""

from __future__ import annotations

import argparse
import sys

from cawalib.notebook import warm
from cawalib.notebook.checks import NotebookError
from cawalib.notebook.parameter_cell import CallError, ParameterError, cast, read_notebook
from cawalib.notebook.refresh import refresh
from cawalib.notebook.runner import run


class _Parser(argparse.ArgumentParser):
    def error(self, message):
        raise CallError(f"{message}; see --help")


def main(arguments=None) -> int:
    """The command line, done by the warm process of a batch where there is one (`warm`).

    Args:
        arguments: list of str, done in this process; None: those of the process.

    Returns:
        The exit code.
    """
    if arguments is None:
        arguments = sys.argv[1:]
        code = warm.call(arguments)
        if code is not None:
            return code
    try:
        options = _options(arguments)
        if options.refresh:
            for notebook in options.paths:
                refresh(notebook)
        else:
            _, defaults = read_notebook(options.paths[0])
            given = {name: cast(text, defaults.get(name, "")) for name, text in options.parameters}
            run(*options.paths, given, options.expect, options.timeout, options.make_folder,
                options.leave_out)
    except (CallError, NotebookError) as error:
        if error.traceback and (options.traceback or not error.foreseen):
            print(error.traceback, file=sys.stderr)
        print(f"cawalib.notebook: error: {error}", file=sys.stderr)
        return error.exit_code
    return 0


def _options(arguments):
    parser = _Parser("cawalib.notebook", "python -m cawalib.notebook NOTEBOOK OUT -p name value ... [options]\n"
                     "       python -m cawalib.notebook --refresh NOTEBOOK ...",
                     "Strict headless execution of a notebook.", allow_abbrev=False)
    parser.add_argument("paths", nargs="+", help="the notebook, and where the executed one goes")
    parser.add_argument("-p", dest="parameters", nargs=2, action="append", default=[], metavar=("name", "value"))
    parser.add_argument("--expect", nargs="+", action="extend", default=[], metavar="FILE",
                        help="fail unless these files are there after the run")
    parser.add_argument("--timeout", type=float, metavar="SECONDS", help="limit of a single cell")
    parser.add_argument("--make-folder", action="store_true", help="make the folder of OUT")
    parser.add_argument("--leave-out", default="", metavar="TAG", help="leave out the cells with this tag")
    parser.add_argument("--traceback", action="store_true", help="show the traceback of every error")
    parser.add_argument("--refresh", action="store_true", help="execute in place, for the committed outputs")
    options = parser.parse_intermixed_args(arguments)
    if len(options.paths) != 2 and not options.refresh:
        raise CallError(f"found {len(options.paths)} file names, expected NOTEBOOK and OUT")
    if options.refresh and options.parameters + options.expect:
        raise CallError("found -p or --expect beside --refresh, which runs the default parameters; leave it out")
    names = [name for name, _ in options.parameters]
    if len(names) > len(set(names)):
        raise ParameterError(f"parameter {max(names, key=names.count)!r}: given more than once")
    return options


if __name__ == "__main__":
    sys.exit(main())
