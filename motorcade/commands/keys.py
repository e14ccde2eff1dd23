"""`motorcade keys`: who may sign models, and whom a gateway trusts."""

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from edge.settings import GatewaySettings
from motorcade.config import Config
from motorcade.examples import ExampleGroup
from motorcade.extras import needs
from motorcade.options import only, with_settings
from schemas.errors import SettingsError

if TYPE_CHECKING:
    from scoring.signing import PublicKey

_FILE = click.Path(path_type=Path, dir_okay=False)
_STORE = only("gateway", "trusted_keys_path")
_json_flag = click.option("--json", "as_json", is_flag=True, help="JSON, one object a line.")


@click.group(
    cls=ExampleGroup,
    example="motorcade keys new release.key --comment 'release desk'\n"
    "motorcade keys trust release.key.pub",
    short_help="Keys that sign models, and those that a gateway trusts.",
)
def command() -> None:
    """Keys that sign models (Ed25519), and those that a gateway trusts.

    The private key stays with whoever publishes. The public key, FILE.pub, goes to the gateways:
    their trust store is the directory `gateway.trusted_keys_path`, one file a key.
    """


@command.command(example="motorcade keys new release.key --comment 'release desk'")
@click.argument("file", type=_FILE)
@click.option("--comment", default="", help="Words that go with the public key, such as whose.")
def new(file: Path, comment: str) -> None:
    """Make a private key in FILE, for its owner's eyes alone, and its public key in FILE.pub."""
    with needs("edge", "cloud"):
        from scoring.signing import PUBLIC_SUFFIX, SigningKey, with_comment

        key = SigningKey.generate()
        public = with_comment(key.public, comment)
        public_file = file.with_name(file.name + PUBLIC_SUFFIX)
        if public_file.exists():
            raise SettingsError(f"{public_file} is there already; keys are never overwritten")
        key.save(file)
        try:
            public_file.write_text(public.to_line(), "utf-8")
        except OSError as error:
            raise SettingsError(f"cannot write {public_file}: {error.strerror}") from error
    click.echo(f"{public.key_id}  private in {file}, public in {public_file}")


@command.command(example="motorcade keys show release.key.pub")
@click.argument("file", type=_FILE)
def show(file: Path) -> None:
    """Print the id of a key, and its public key; of a private key's file as well."""
    with needs("edge", "cloud"):
        from scoring.signing import read_public

        key = read_public(file)
    click.echo(f"key      {key.key_id}")
    click.echo(f"comment  {key.comment or 'none'}")
    click.echo(f"public   {key.to_line().strip()}")


@command.command("list", example="motorcade keys list\nmotorcade keys list --json")
@_json_flag
@with_settings("gateway", hide=_STORE)
def list_(config: Config, as_json: bool) -> int:
    """The keys that a gateway here trusts. Exit status 1 if a file there is no key."""
    with needs("edge", "cloud"):
        from scoring.signing import TrustStore

        store = TrustStore.load(config.section(GatewaySettings).trusted_keys_path)
    for key in sorted(store.keys.values(), key=lambda key: key.key_id):
        click.echo(_json(key) if as_json else f"{key.key_id}  {key.comment}".rstrip())
    for error in store.broken:
        click.echo(f"no key: {error}", err=True)
    return 1 if store.broken else 0


def _json(key: "PublicKey") -> str:
    return json.dumps({"key_id": key.key_id, "comment": key.comment, "public": key.raw.hex()})


@command.command(example="motorcade keys trust release.key.pub")
@click.argument("file", type=_FILE)
@with_settings("gateway", hide=_STORE)
def trust(config: Config, file: Path) -> None:
    """Trust a public key from now on; a running gateway sees it by itself."""
    with needs("edge", "cloud"):
        from scoring.signing import PublicKey
        from scoring.signing import trust as trust_key

        key = PublicKey.load(file)
        path = trust_key(config.section(GatewaySettings).trusted_keys_path, key)
    click.echo(f"{key.key_id} is trusted, as {path}")


@command.command(example="motorcade keys revoke 5a0c1d2e3f405162")
@click.argument("key_id")
@with_settings("gateway", hide=_STORE)
def revoke(config: Config, key_id: str) -> None:
    """Trust a key no more. Its file is renamed to end in .revoked, and counts for nothing.

    A model that it signed and that is in use goes on until the gateway's next start; where
    signatures are required it is refused then.
    """
    with needs("edge", "cloud"):
        from scoring.signing import revoke as revoke_key

        for path in revoke_key(config.section(GatewaySettings).trusted_keys_path, key_id):
            click.echo(f"{key_id} is trusted no more; its file is now {path}")
