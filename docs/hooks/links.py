"""What MkDocs does not know: notebooks, links to files outside docs/, and transformers' conventions in docstrings,
such as [`~fisa.module.name`] and (`bool`, *optional*, defaults to `True`)."""

import json
import os.path
import re
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

import fisa


OUTSIDE = re.compile(r"\]\((\.\./[^)#\s]+)\)")
NOTEBOOK = re.compile(r"\]\((notebooks/\w+)\.ipynb\)")
NAME = re.compile(r"\[<code>(~?)([\w.]+)</code>\]")
MARKED_UP_TYPE = re.compile(r"<code>([^<]*`[^<]*)</code>")
SAID_BY_SIGNATURE = re.compile(r", \*optional\*|, defaults to .*|\[`|`\]|`")
LANGUAGES = {".py": "python", ".yaml": "yaml", ".cff": "yaml"}


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add a page for each notebook, and for each file outside docs/ that a page links to, and let links lead there."""
    root, docs = Path(config.config_file_path).parent, Path(config.docs_dir)
    for notebook in [file for file in files if file.src_uri.endswith(".ipynb")]:
        files.remove(notebook)
        page = notebook.src_uri.removesuffix(".ipynb") + ".md"
        files.append(File.generated(config, page, content=_cells(docs / notebook.src_uri)))
    for page in list(files.documentation_pages()):
        text, folder = NOTEBOOK.sub(r"](\1.md)", page.content_string), (docs / page.src_uri).parent
        for link in OUTSIDE.findall(text):
            source = Path(os.path.normpath(folder / link))
            if source.is_relative_to(docs) or not source.is_file():
                continue  # MkDocs checks these
            target = f"source/{source.relative_to(root).as_posix()}.md"
            text = text.replace(f"]({link})", f"]({os.path.relpath(docs / target, folder)})")
            if files.get_file_from_path(target) is None:
                files.append(File.generated(config, target, content=_shown(source, root)))
        if text != page.content_string:
            page.content_string = text
    return files


def on_page_content(html: str, **_: Any) -> str:
    """Let names in docstrings lead to their place in the API reference, where it has one, and show types plainly."""
    html = MARKED_UP_TYPE.sub(lambda match: f"<code>{SAID_BY_SIGNATURE.sub('', match[1])}</code>", html)
    return NAME.sub(_reference, html)


def _reference(match: re.Match[str]) -> str:
    short, name = match.groups()
    identifier = f"fisa.{name}" if name in fisa.__all__ else name
    shown = name.rpartition(".")[2] if short else name
    return f'<autoref optional identifier="{identifier}"><code>{shown}</code></autoref>'


def _cells(notebook: Path) -> str:
    cells = [(cell["cell_type"], "".join(cell["source"])) for cell in json.loads(notebook.read_text())["cells"]]
    return "\n\n".join(text if kind == "markdown" else f"```python\n{text}\n```" for kind, text in cells)


def _shown(source: Path, root: Path) -> str:
    text = source.read_text(encoding="utf-8")
    if source.suffix == ".md":
        return text
    return f"# {source.relative_to(root).as_posix()}\n\n```{LANGUAGES.get(source.suffix, '')}\n{text}```\n"
