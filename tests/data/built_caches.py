"""What tests of proposal caches share: a build, and a cache's files."""

from fisa.data.proposal_caching import cached_proposals


def files(folder):
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def build(folder, data, parts, **options):
    model, processor = parts
    return cached_proposals(str(folder), data, model=model, processor=processor, **{"flips": True} | options)
