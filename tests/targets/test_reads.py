"""What may be asked of what is live: reads pass, nothing else reaches the engine, however it is dressed."""

from __future__ import annotations

import pytest

from bgdeploy.targets.ladybug.engine import QueryFailed
from bgdeploy.targets.ladybug.reader import refuse_others

READS = [
    "MATCH (n) RETURN count(*) AS n",
    "match(n) return n;  // the end; of it",
    "/* CHECKPOINT; */ RETURN 1 ; ",
    "OPTIONAL MATCH (n:`LOAD FROM; x`) RETURN n.`CALL x = 1`",
    "RETURN 'a; CHECKPOINT \\' LOAD FROM ' AS x, \"COPY; \\\" ' \" AS y",
    "MATCH (n) WHERE n.load = 'FROM' RETURN n.load, n.from",
    "WITH 1 AS x UNWIND [x] AS y RETURN y UNION ALL RETURN 2 AS y",
    "CALL show_tables() WHERE type = 'NODE' RETURN *",
    "EXPLAIN LOGICAL MATCH (n) RETURN n",
    "PROFILE MATCH (n) RETURN n",
    "",  # the engine says that it is empty
]

OTHERS = [
    ("CHECKPOINT", "begins with CHECKPOINT is not run"),
    ("/* MATCH */ checkpoint;", "begins with CHECKPOINT is not run"),
    ("EXPLAIN CHECKPOINT", "begins with CHECKPOINT is not run"),
    ("PROFILE EXPORT DATABASE 'x'", "begins with EXPORT is not run"),
    ("COPY (MATCH (n) RETURN n) TO 'x.csv'", "begins with COPY is not run"),
    ("LOAD FROM '/etc/passwd' RETURN *", "begins with LOAD is not run"),
    ("CREATE (:P {id: 'x'})", "begins with CREATE is not run"),
    ("MATCHES", "begins with MATCHES is not run"),
    ("(MATCH (n) RETURN n)", "begins with ( is not run"),
    ("MATCH (n) LOAD/* */FROM '/etc/passwd' RETURN *", "and no files"),
    ("UNWIND [1] AS x LOAD\u180efrom 'x' RETURN *", "and no files"),
    ("WITH 1 AS x LOAD\u00a0WITH HEADERS (a STRING) FROM 'x' RETURN *", "and no files"),
    ("CALL `read_parquet`('x') RETURN *", "and no files"),
    ("CALL threads=1", "changes no setting"),
    ("CALL `threads` /* */ = 1", "changes no setting"),
    ("EXPLAIN CALL\u180ethreads\u180e=1", "changes no setting"),
    ("RETURN 1; CHECKPOINT", "Several statements"),
    ("RETURN ';' // '\n; CHECKPOINT // '", "Several statements"),
    ("RETURN 'a\\\\'; CHECKPOINT // '", "Several statements"),
    ("RETURN `'`; CHECKPOINT // '", "Several statements"),
    ("RETURN '; CHECKPOINT", "Several statements"),  # no text: it has no end
]


@pytest.mark.parametrize("cypher", READS)
def test_what_reads_passes(cypher: str) -> None:
    refuse_others(cypher)


@pytest.mark.parametrize(("cypher", "said"), OTHERS)
def test_all_else_is_refused_before_the_engine_sees_it(cypher: str, said: str) -> None:
    with pytest.raises(QueryFailed) as refused:
        refuse_others(cypher)
    assert said in refused.value.what
    assert refused.value.kept == "Nothing was changed."
    assert refused.value.cure
