"""Where assets rest: tables as Parquet, facts as JSON, models as folders, each a sealed version on its own shelf.

Here: Dagster's IO manager over `versioned_store`. Not here: the promises of atomicity and checksums, which that module
keeps, or what the assets mean.
"""

from __future__ import annotations

import json
from dataclasses import is_dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, get_args, runtime_checkable

import dagster as dg
from pydantic import PrivateAttr

from loan_assets.bucket import bucket_at
from loan_assets.policy_file import the_policy
from loan_assets.refusal import Refusal
from loan_assets.resources.step_meter import StepMeter
from loan_assets.resources.versioned_store import Version, VersionedStore
from loan_assets.settings import Settings

if TYPE_CHECKING:
    import pandas as pd

TABLE, FACT = "table.parquet", "fact.json"
ATTRIBUTES = b"loan_assets"


@runtime_checkable
class Folder(Protocol):
    """A value that writes itself as plain files and reads itself back."""

    def save(self, folder: Path) -> None:
        """Write the files."""

    @classmethod
    def load(cls, folder: Path) -> Folder:
        """Read what `save` wrote."""


@runtime_checkable
class Shown(Folder, Protocol):
    """A folder with files that a person would open, which are linked from the asset's page."""

    def pages(self) -> tuple[str, ...]:
        """Their names in the folder."""


class AssetStore(dg.ConfigurableIOManager):
    """One shelf per asset, or per partition of one. The data version of an asset is the digest of what rests there.

    A partitioned asset is a dictionary from partition key to table, for one partition as for many.
    """

    root: str
    keep: int
    bucket: str = ""
    _meter: StepMeter | None = PrivateAttr(default=None)

    def setup_for_execution(self, context: dg.InitResourceContext) -> None:
        """Measure what the steps of this run cost: every asset passes this door, so every run opens it."""
        if context.instance is not None and context.run is not None:
            self._meter = StepMeter(context.instance)
            self._meter.listen(context.run.run_id)

    @classmethod
    def over(cls, settings: Settings) -> AssetStore:
        """The store that the settings name."""
        return cls(root=str(settings.store), keep=the_policy().versions_kept, bucket=bucket_at(settings.store_place))

    @property
    def store(self) -> VersionedStore:
        """The plain store beneath, for code that reads an asset outside a run."""
        return VersionedStore(root=Path(self.root), keep=self.keep, bucket=self.bucket)

    def handle_output(self, context: dg.OutputContext, obj: object) -> None:
        """Write a new version of the asset, of each partition when it has them, and record its digest."""
        name = context.asset_key.to_python_identifier()
        if context.has_asset_partitions:
            self._write_partitions(context, name, obj)
        else:
            _record(context, {None: self.store.write(name, partial(_save, obj))}, obj)
        if self._meter is not None and (spent := self._meter.so_far(name)) is not None:
            # Of the whole step, whatever number of partitions it made.
            context.add_output_metadata(spent.facts())

    def load_input(self, context: dg.InputContext) -> Any:
        """The verified version in force; a dictionary of partitions when the asset has them.

        Raises:
            Refusal: when it was never written, or its bytes are not those that were sealed.
        """
        name = context.asset_key.to_python_identifier()
        wanted = context.dagster_type.typing_type
        if context.has_asset_partitions:
            each = (get_args(wanted) or (str, object))[1]  # dict[str, what one partition is]
            # Months that have not arrived yet are partitions too; what is there is what there is to read.
            keys = context.asset_partition_keys
            there = [key for key in keys if self.holds(f"{name}/{key}")]
            return {key: self.read(f"{name}/{key}", each) for key in there or keys[-1:]}
        return self.read(name, wanted)

    def holds(self, shelf: str) -> bool:
        """Whether anything was ever put in force on a shelf."""
        return self.store.pointed(shelf) is not None

    def partitions(self, name: str) -> tuple[str, ...]:
        """The partitions of an asset on which anything is in force, in the order of their names."""
        return self.store.shelves(name)

    def links_to(self, shelf: str, obj: object) -> dict[str, dg.PathMetadataValue]:
        """The paths of the pages of what was read from a shelf, by file name."""
        version = self.store.current(shelf)
        return {page: dg.MetadataValue.path(str(version.folder / page)) for page in pages_of(obj)} if version else {}

    def read(self, shelf: str, wanted: type) -> Any:
        """One shelf's value: a table, or a fact or folder of type `wanted`."""
        version = self.store.current(shelf)
        if version is None:
            raise Refusal(f"{shelf} has never been materialized.", "Materialize it first, or run `loan-assets run`.")
        return _load(version.folder, wanted)

    def _write_partitions(self, context: dg.OutputContext, name: str, obj: object) -> None:
        if not isinstance(obj, dict) or sorted(obj) != sorted(context.asset_partition_keys):
            raise TypeError(f"{name} must return one value for each of {list(context.asset_partition_keys)}")
        written: dict[str | None, Version] = {}
        for key, table in obj.items():
            written[key] = self.store.write(f"{name}/{key}", partial(_save, table))
            rows = {"dagster/row_count": len(table)} if _is_table(table) else {}
            folder = written[key].folder
            links = {page: dg.MetadataValue.path(str(folder / page)) for page in pages_of(table)}
            facts = {"digest": written[key].digest, "path": dg.MetadataValue.path(str(folder)), **links, **rows}
            context.step_context.add_asset_metadata(facts, asset_key=context.asset_key, partition_key=key)
        _record(context, written, None)


def _record(context: dg.OutputContext, written: dict[str | None, Version], obj: object) -> None:
    """Make the content's digest the asset's data version; several partitions share the digest of their digests.

    Dagster holds one data version per asset and run, so each partition's own digest is in its metadata.
    """
    digests = [version.digest for _, version in sorted(written.items(), key=lambda item: item[0] or "")]
    if len(digests) == 1:
        digest = digests[0]
    else:
        import hashlib

        digest = hashlib.sha256("".join(digests).encode()).hexdigest()
    context.step_context.set_data_version(context.asset_key, dg.DataVersion(digest))
    if None in written:
        version = written[None]
        rows = {"dagster/row_count": len(obj)} if _is_table(obj) else {}  # type: ignore[arg-type]
        context.add_output_metadata({"digest": digest, "path": dg.MetadataValue.path(str(version.folder)), **rows})


def pages_of(obj: object) -> tuple[str, ...]:
    """The files of a stored value that a person would open."""
    return obj.pages() if isinstance(obj, Shown) else ()


def _save(obj: object, folder: Path) -> None:
    if _is_table(obj):
        write_table(obj, folder / TABLE)  # type: ignore[arg-type]
    elif isinstance(obj, Folder):
        obj.save(folder)
    elif is_dataclass(obj):
        from pydantic import TypeAdapter

        (folder / FACT).write_bytes(TypeAdapter(type(obj)).dump_json(obj, indent=1) + b"\n")
    else:
        raise TypeError(f"{type(obj).__name__} is neither a table, a dataclass nor a value with save and load")


def _load(folder: Path, wanted: type) -> Any:
    if (folder / TABLE).exists():
        return read_table(folder / TABLE)
    if issubclass(wanted, Folder):
        return wanted.load(folder)
    from pydantic import TypeAdapter

    return TypeAdapter(wanted).validate_json((folder / FACT).read_bytes())


def write_table(frame: pd.DataFrame, path: Path) -> None:
    """A table as Parquet, with what its `attrs` say of it; the same rows and attributes give the same bytes."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    said = {ATTRIBUTES: json.dumps(frame.attrs, sort_keys=True)} if frame.attrs else None
    # Schema metadata of pandas names library versions, which would change the digest of unchanged rows.
    table = pa.Table.from_pandas(frame, preserve_index=False).replace_schema_metadata(said)
    pq.write_table(table, path, compression="zstd")


def read_table(path: Path) -> pd.DataFrame:
    """A Parquet table with the types and attributes it was written with."""
    import pyarrow.parquet as pq

    table = pq.read_table(path)
    frame: pd.DataFrame = table.to_pandas()
    frame.attrs = json.loads((table.schema.metadata or {}).get(ATTRIBUTES, b"{}"))
    return frame


def _is_table(obj: object) -> bool:
    return type(obj).__module__.startswith("pandas.") and type(obj).__name__ == "DataFrame"
