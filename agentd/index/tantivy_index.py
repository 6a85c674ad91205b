"""The index on tantivy: answers over a million messages in a millisecond or so."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import tantivy
from tantivy import Occur
from tantivy import Query as Part

from agentd.index.engine import FIRST_SEQ, LAST_SEQ, MOST_MARKS, Entry, Hit, IndexDamaged, Within
from agentd.index.query import Query, Term

_HEAP_BYTES: Final = 32_000_000
_ANALYZER: Final = "words"


class TantivyIndex:
    """An index of tantivy's; the watermark of a shard is a document without words."""

    def __init__(self, directory: Path) -> None:
        with _damage():
            self._schema = _schema()
            self._index = tantivy.Index(self._schema, path=str(directory), reuse=True)
            analyzer = tantivy.TextAnalyzerBuilder(tantivy.Tokenizer.whitespace()).build()
            self._index.register_tokenizer(_ANALYZER, analyzer)
            self._index.config_reader("manual")
            self._writer = self._index.writer(_HEAP_BYTES, 1)
            self.watermarks: dict[int, int] = self._read_watermarks()

    def _read_watermarks(self) -> dict[int, int]:
        searcher = self._index.searcher()
        marks = _range(self._schema, "shard", 0, MOST_MARKS)
        found = [searcher.doc(address) for _, address in searcher.search(marks, MOST_MARKS, count=False).hits]
        return {document["shard"][0]: document["mark"][0] for document in found}

    def add(self, entries: Sequence[Entry]) -> None:
        """Take in texts; they are found after the next commit."""
        with _damage():
            for seq, to, sender, words in entries:
                document = tantivy.Document(body=" ".join(words), to=to, sender=sender, seq=seq)
                self._writer.add_document(document)

    def commit(self, watermarks: Mapping[int, int]) -> None:
        """Put on disk what was added together with how far that goes."""
        with _damage():
            for shard, seq in watermarks.items():
                self._writer.delete_documents_by_term("shard", shard)
                self._writer.add_document(tantivy.Document(shard=shard, mark=seq))
            self._writer.commit()
            self._index.reload()
        self.watermarks = dict(watermarks)

    def search(self, query: Query, within: Within, limit: int) -> list[Hit]:
        """Return the best texts, best first."""
        with _damage():
            searcher = self._index.searcher()
            found = searcher.search(_whole(self._schema, query, within), limit, count=False).hits
            seqs = searcher.fast_field_values("seq", [address for _, address in found])
            return [Hit(int(seq or 0), score) for seq, (score, _) in zip(seqs, found, strict=True)]

    def close(self) -> None:
        """Let go of the files; what was not committed is forgotten."""
        with _damage():
            self._writer.rollback()
            self._writer.wait_merging_threads()


def _schema() -> tantivy.Schema:
    builder = tantivy.SchemaBuilder()
    builder.add_text_field("body", tokenizer_name=_ANALYZER)
    builder.add_text_field("to", tokenizer_name="raw", index_option="basic")
    builder.add_text_field("sender", tokenizer_name="raw", index_option="basic")
    builder.add_integer_field("seq", fast=True)
    builder.add_integer_field("shard", stored=True, indexed=True)
    builder.add_integer_field("mark", stored=True)
    return builder.build()


def _whole(schema: tantivy.Schema, query: Query, within: Within) -> Part:
    parts = [(Occur.Must, _any(_term(schema, term) for term in group)) for group in query.groups]
    parts += [(Occur.MustNot, _term(schema, term)) for term in query.without]
    parts += [(Occur.Must, Part.const_score_query(part, 0.0)) for part in _filters(schema, within)]
    return parts[0][1] if len(parts) == 1 else Part.boolean_query(parts)


def _filters(schema: tantivy.Schema, within: Within) -> Iterator[Part]:
    if within.to:
        yield Part.term_set_query(schema, "to", within.to)
    if within.senders:
        yield Part.term_set_query(schema, "sender", within.senders)
    if within.of:
        yield _any(Part.term_query(schema, field, within.of) for field in ("to", "sender"))
    if (within.since_seq, within.until_seq) != (FIRST_SEQ, LAST_SEQ):
        yield _range(schema, "seq", within.since_seq, within.until_seq)


def _range(schema: tantivy.Schema, field: str, low: int, high: int) -> Part:
    return Part.range_query(schema, field, tantivy.FieldType.Integer, low, high)


def _any(parts: Iterator[Part]) -> Part:
    each = list(parts)
    return each[0] if len(each) == 1 else Part.boolean_query([(Occur.Should, part) for part in each])


def _term(schema: tantivy.Schema, term: Term) -> Part:
    """Return a term's part; words are letters and digits only, so that none is an operator of a pattern."""
    *first, last = term.words
    if term.prefix:
        pattern = f"{last}.*"
        if first:
            return Part.regex_phrase_query(schema, "body", [*first, pattern])
        return Part.regex_query(schema, "body", pattern)
    return Part.phrase_query(schema, "body", [*first, last]) if first else Part.term_query(schema, "body", last)


@contextmanager
def _damage() -> Iterator[None]:
    try:
        yield
    except (ValueError, OSError) as error:
        raise IndexDamaged(str(error)) from error
    except BaseException as error:
        if type(error).__name__ != "PanicException":  # how a failed assertion of the engine arrives: no Exception
            raise
        raise IndexDamaged(f"the engine failed: {error}") from error
