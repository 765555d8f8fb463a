"""The parser of every command line of the package."""

import argparse
import difflib
from collections.abc import Sequence
from typing import Any, NoReturn


IN_QUOTES = 'Several classes are one argument, in quotes: --labels "red car, road, sky".'


class OneLineParser(argparse.ArgumentParser):
    """A parser whose errors are one line, without the usage, which `--help` shows; options are not abbreviated, since
    a misspelt one would be taken for another."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options | {"allow_abbrev": False})

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: error: {' '.join(message.split())}\n")

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """As argparse's own, which would leave it to others to refuse what no option takes."""
        options, unknown = super().parse_known_args(args, namespace)
        if unknown:
            self.error(self._why_unknown(unknown))
        return options, unknown

    def _why_unknown(self, arguments: Sequence[str]) -> str:
        named = next((argument for argument in arguments if argument.startswith("-")), None)
        if named is not None:
            name = named.partition("=")[0]
            like = difflib.get_close_matches(name, self._option_string_actions, n=1, cutoff=0.75)
            advice = f"did you mean {like[0]}?" if like else f"{self.prog} --help lists the options."
            return f"there is no option {name}; {advice}"
        takes_words = "--labels" in self._option_string_actions
        advice = f" {IN_QUOTES}" if takes_words else f" {self.prog} --help lists the options."
        return f"no option takes {' '.join(arguments)}.{advice}"
