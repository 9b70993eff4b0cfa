"""Puts the folder of a model on the hub."""

from __future__ import annotations

from pathlib import Path

import huggingface_hub
from huggingface_hub import constants
from huggingface_hub.errors import HfHubHTTPError, HFValidationError  # type: ignore[attr-defined]

from nsvd_exp.config.files import expand_path
from nsvd_exp.errors import NsvdError
from nsvd_exp.models.checkpoint.reading import weight_files
from nsvd_exp.models.hub import NO_CONNECTION


def push(
    folder: str | Path,
    name: str,
    private: bool = True,
    token: str | None = None,
    message: str | None = None,
) -> str:
    """Put the folder of a saved model on the hub, as one commit.

    Args:
        folder: from `save`.
        name: of the repository, `USER/NAME`; it is made where there is none.
        private: whether only its owner sees it.
        token: with the right to write; None: that of `hf auth login` or HF_TOKEN.
        message: of the commit.

    Returns:
        The address of the commit.

    Raises:
        NsvdError: the folder holds no model, there is no token, a repository of this name is more
            public than it is to be, or the hub refuses or cannot be reached.
    """
    source = Path(expand_path(str(folder)))
    weight_files(source)
    token = token or huggingface_hub.get_token()
    if not token:
        raise NsvdError(
            f"to push to '{name}' takes a token that may write: make one at "
            "https://huggingface.co/settings/tokens, then `hf auth login` or set HF_TOKEN"
        )
    hub = huggingface_hub.HfApi(token=token)
    try:
        hub.create_repo(name, private=private, exist_ok=True)
        if private and not hub.model_info(name).private:
            raise NsvdError(
                f"'{name}' is on the hub already, and everyone sees it: push with private=False, "
                "or to another name"
            )
        commit = hub.upload_folder(
            repo_id=name,
            folder_path=source,
            commit_message=message or "A compressed model, by nsvd_exp",
        )
    except HFValidationError as error:
        raise NsvdError(f"'{name}' is no name of a repository on the hub: {error}") from None
    except HfHubHTTPError as error:
        text = str(error).strip().replace("\n", " ")
        raise NsvdError(f"pushing to '{name}': the hub answered {text}") from None
    except NO_CONNECTION as error:
        raise NsvdError(
            f"pushing to '{name}': the hub ({constants.ENDPOINT}) cannot be reached: {error}"
        ) from None
    return str(commit.commit_url)
