"""Repositories of models and datasets on the hub: their commits and files. Imports no torch."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import huggingface_hub
from huggingface_hub import constants
from huggingface_hub.errors import (  # type: ignore[attr-defined]
    EntryNotFoundError,
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    HTTPError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.file_download import repo_folder_name

from nsvd_exp.errors import NsvdError

T = TypeVar("T")

# HTTPError is the base class of whichever HTTP client this huggingface_hub is built on.
NO_CONNECTION = (ConnectionError, TimeoutError, HTTPError)


def on_hub(name: str, kind: str, call: Callable[[], T]) -> T:
    """`call()`, with the hub's exceptions turned into messages.

    Args:
        name: of the repository.
        kind: `model` or `dataset`.
    """
    page = f"https://huggingface.co/{'datasets/' if kind == 'dataset' else ''}{name}"
    try:
        return call()
    except GatedRepoError:
        raise NsvdError(
            f"{kind} '{name}' is gated: accept its licence at {page}, make a token at "
            "https://huggingface.co/settings/tokens, then `hf auth login` or set HF_TOKEN"
        ) from None
    except RepositoryNotFoundError:
        raise NsvdError(
            f"{kind} '{name}' is neither a local folder nor on the hub ({page}), or it is private: "
            "check the name, or set HF_TOKEN"
        ) from None
    except RevisionNotFoundError:
        raise NsvdError(f"{kind} '{name}' has no such revision: see {page}/tree/main") from None
    except HFValidationError:
        raise NsvdError(f"{kind} '{name}' is neither a local folder nor a hub id") from None
    except LocalEntryNotFoundError:
        raise _unreachable(name, kind) from None
    except EntryNotFoundError as error:
        raise NsvdError(f"{kind} '{name}': {str(error).splitlines()[0]}") from None
    except HfHubHTTPError as error:
        raise NsvdError(f"{kind} '{name}': the hub answered {error}") from None
    except NO_CONNECTION:
        raise _unreachable(name, kind) from None


def _unreachable(name: str, kind: str) -> NsvdError:
    local = "model.name=FOLDER" if kind == "model" else "data_dir=FOLDER"
    return NsvdError(
        f"{kind} '{name}' is no local folder, the hub cannot be reached, and it is not in the hub "
        f"cache ({constants.HF_HUB_CACHE}): connect, or give a local copy with {local}"
    )


@functools.lru_cache
def hub_commit(name: str, revision: str, kind: str) -> str:
    """The commit that `revision` of a hub repository stands for; asked once per process.

    Where the hub cannot be reached, the hub cache answers.

    Raises:
        NsvdError: there is no such repository or revision, it is gated, or the hub is out of reach
            and the cache does not know it.
    """
    if re.fullmatch(r"[0-9a-f]{40}", revision):
        return revision
    try:
        info = huggingface_hub.HfApi().repo_info(
            name, revision=revision, repo_type=kind, timeout=20
        )
        return str(info.sha)
    except (HFValidationError, HfHubHTTPError) as error:
        failure: Exception = error
    except NO_CONNECTION as error:
        folder = repo_folder_name(repo_id=name, repo_type=kind)
        reference = Path(constants.HF_HUB_CACHE) / folder / "refs" / revision
        if reference.is_file():
            return reference.read_text().strip()
        failure = error

    def fail() -> str:
        raise failure

    return on_hub(name, kind, fail)


def hub_file(name: str, file: str, commit: str, kind: str) -> Path:
    """One file of a hub repository, downloaded or from the hub cache."""
    return Path(
        on_hub(
            name,
            kind,
            lambda: huggingface_hub.hf_hub_download(name, file, revision=commit, repo_type=kind),
        )
    )
