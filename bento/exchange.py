"""A box's traffic with buckets: releases are brought here before they are followed, what was answered is shipped away.

Here: what is brought and shipped, when a box is told to use buckets. Not here: how (`loan_assets.mirror`,
`loan_assets.shipped_log`), or who follows what was brought (`releases`). A box without a bucket has nothing to do here.
"""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta

from bento import metrics
from bento.places import Places
from loan_assets.bucket import Bucket
from loan_assets.mirror import Mirror, discard
from loan_assets.policy import Endpoint
from loan_assets.prediction_record import day_of
from loan_assets.refusal import Refusal
from loan_assets.sealed import point
from loan_assets.shipped_log import ShippedLog
from loan_assets.standing import SHELF, Standing, standings_in

# Another worker may still be reading a release that was replaced a moment ago.
SECONDS_KEPT = 3_600.0
SECONDS_BEFORE_TRYING_AGAIN = 10.0


class Exchange:
    """What a box has in buckets, by its places."""

    def __init__(self, places: Places, limits: Endpoint) -> None:
        self._limits = limits
        self._mirror = None
        if places.releases_bucket and places.releases is not None:
            self._mirror = Mirror(bucket=Bucket(places.releases_bucket), folder=places.releases)
        # What this process has brought whole, and what it could not, with when that was.
        self._followed: str | None = None
        self._troubled = ("", 0.0, Refusal("", ""))
        self._log = None
        if places.predictions_bucket:
            self._log = ShippedLog(Bucket(places.predictions_bucket), places.predictions)

    def follow(self) -> None:
        """Bring what the bucket's pointer names, and then the pointer, so that nothing is named that is not here.

        Raises:
            Refusal: when the store is away or a release is not what was sealed; what is here stays as it was.
        """
        if self._mirror is None:
            return
        with metrics.away("releases"):
            held = self._mirror.seen(SHELF)
            digest = held.data.decode("ascii", "replace").strip() if held is not None else None
            if digest is None or digest == self._followed:
                return
            named, when, reason = self._troubled
            if digest == named and time.monotonic() - when < SECONDS_BEFORE_TRYING_AGAIN:
                raise reason
            try:
                self._bring(self._mirror, digest)
            except Refusal as refused:
                self._troubled = (digest, time.monotonic(), refused)
                raise
            self._followed = digest

    def _bring(self, mirror: Mirror, digest: str) -> None:
        """Bring whom a pointer names, then the pointer; a challenger that cannot be had keeps no champion away."""
        standings = standings_in(mirror.fetch(SHELF, digest))
        champion, challenger = standings.champion, standings.challenger
        mirror.fetch(f"v{champion.version}", champion.digest)
        point(mirror.folder / SHELF, digest)
        if challenger is not None:
            mirror.fetch(f"v{challenger.version}", challenger.digest)
        self._clear_out([champion, *([challenger] if challenger else [])])

    def ship(self) -> None:
        """Ship what was answered since.

        Raises:
            Refusal: when the store is away; what was not shipped is kept.
        """
        if self._log is None:
            return
        # First, and without asking the store: room is short above all while nothing can be shipped.
        self._log.make_room(full=self._limits.log_file_bytes, most=self._limits.log_bytes)
        with metrics.away("predictions"):
            metrics.UNSHIPPED.set(self._log.ship())
            self._log.forget(before=day_of(datetime.now(UTC) - timedelta(days=self._limits.days_kept_here)))

    def _clear_out(self, stand: list[Standing]) -> None:
        """Remove copies of releases that do not stand any more and were not brought a moment ago."""
        assert self._mirror is not None
        staying = {self._mirror.folder / one.path for one in stand}
        for folder in self._mirror.folder.glob("v*/????????????????"):
            if folder not in staying and time.time() - folder.stat().st_mtime > SECONDS_KEPT:
                discard(folder)
