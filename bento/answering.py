"""From a question to an answer on record: who answers, what is logged, and that a repeat is answered once.

Here: the order of scoring, wording, recording and counting. Not here: HTTP (`application`), how rows are scored
(`scorer`), the log (`prediction_log`) or the record of names (`repeats`).

A question is answered by the one release that was in force when it had been read, is on record before it is answered,
and is answered once; from scoring to recording it gives way to no other.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from http import HTTPStatus

import msgspec

from bento import metrics
from bento.prediction_log import CannotRecord, PredictionLog
from bento.reading import named
from bento.releases import InForce
from bento.repeats import NameTaken, Repeats
from bento.requests import AGAIN, Problem, Question, Reply, Request
from bento.scorer import Asked
from loan_assets.prediction_record import CANARY, CHAMPION, PredictionRecord


class Answers:
    """Answers of one worker, on record in its log."""

    def __init__(self, log: PredictionLog, repeats: Repeats, now: Callable[[], datetime], rehearsal: str) -> None:
        self._log, self._repeats, self._now, self._rehearsal = log, repeats, now, rehearsal
        # A request without a name of its own is named by the worker's own prefix and a count.
        self._worker, self._unnamed = os.urandom(10).hex(), 0

    async def answer(self, question: Question, request: Request, in_force: InForce) -> Reply:
        """The answer to a question, on record.

        Raises:
            Problem: 409 where its name belongs to another question, 503 where it cannot be put on record.
        """
        name = _the_name(question.name, request.headers)
        try:
            if name is None:
                self._unnamed += 1
                asked = await _made(question)
                return self._answered(f"{self._worker}{self._unnamed:012x}", asked, question, request, in_force)
            return await self._answered_once(name, question, request, in_force)
        except NameTaken as taken:
            raise Problem(HTTPStatus.CONFLICT, str(taken)) from None
        except (CannotRecord, sqlite3.Error) as full:
            why = str(full) if isinstance(full, CannotRecord) else "the record of named requests cannot be written"
            raise Problem(HTTPStatus.SERVICE_UNAVAILABLE, why, AGAIN) from None

    async def _answered_once(self, name: str, question: Question, request: Request, in_force: InForce) -> Reply:
        """The recorded answer to a request that was answered before, else the answer, recorded."""
        key = f"{request.caller}\n{name}"
        meant = msgspec.msgpack.encode((request.route, question.version, question.rows), order="sorted")
        known = self._repeats.answer_to(key, meant)
        if known is None:
            asked = await _made(question)
            async with self._repeats.held(key, meant) as held:
                known = held.answer
                if known is None:
                    reply = self._answered(name, asked, question, request, in_force)
                    kept = {"body": reply.body, "content_type": reply.content_type, "headers": reply.headers}
                    held.answer = msgspec.msgpack.encode(kept)
                    return reply
        metrics.REPEATS.inc()
        return Reply(**msgspec.msgpack.decode(known))

    def _answered(self, name: str, asked: Asked, question: Question, request: Request, in_force: InForce) -> Reply:
        scorer = in_force.arm_of(asked.clients, name)
        if question.version is not None:
            scorer = in_force.of_version(question.version) or scorer
        arm = CHAMPION if scorer is in_force.champion else CANARY
        verdicts = scorer.verdicts(asked.features)
        shadows = in_force.shadow.shadows(asked.features) if in_force.shadow else None
        features = asked.features.tolist()
        answered_at = self._now().isoformat(timespec="microseconds")
        records = [
            PredictionRecord(
                request_id=name,
                row=row,
                answered_at=answered_at,
                route=request.route,
                asked_by=asked.by,
                client_id=asked.clients[row],
                book=scorer.book.name,
                book_digest=scorer.book.digest,
                model_version=scorer.version,
                release_digest=scorer.label,
                arm=arm,
                default_probability=verdict.default_probability,
                decision=verdict.decision,
                reasons=verdict.reasons,
                received=asked.received[row] if asked.received else {},
                features=features[row],
                features_as_of=asked.as_of[row] if asked.as_of else None,
                is_stale=asked.stale[row] if asked.stale else False,
                shadow=shadows[row] if shadows else None,
                rehearsal=self._rehearsal,
                caller=request.caller,
            )
            for row, verdict in enumerate(verdicts)
        ]
        # Worded before it is recorded: what cannot be said is not put on record as answered.
        reply = question.write(records, scorer.texts, in_force.source)
        self._log.append(records)
        _count(records, arm)
        return reply


async def _made(question: Question) -> Asked:
    """What is scored, made of the rows that were read."""
    asked = question.features(question.rows)
    return asked if isinstance(asked, Asked) else await asked


def _the_name(in_body: str | None, headers: Mapping[bytes, bytes]) -> str | None:
    """The caller's own name for a request: in the body, else in X-Request-Id, which a proxy may have added."""
    header = headers.get(b"x-request-id")
    if header is None:
        return in_body
    in_header = named(header.decode("latin-1"))
    return in_header if in_body is None else in_body


def _count(records: Sequence[PredictionRecord], arm: str) -> None:
    for record in records:
        metrics.scores_of(arm, record.decision).observe(record.default_probability)
        if record.is_stale:
            metrics.STALE.inc()
        if record.shadow is not None:
            metrics.SHADOWED.labels(str(record.shadow.decision == record.decision).lower()).inc()
