"""Sends an exported folder to the Hugging Face hub."""

from pathlib import Path

from huggingface_hub import HfApi
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalTokenNotFoundError

# Of the HTTP library that the hub's package uses: httpx, or in newer versions another.
_HttpError = HfHubHTTPError.__bases__[0]


def push(folder: Path, name: str, private: bool = False, endpoint: str | None = None) -> str:
    """Makes the model repository `name`, ORG/NAME, if it is not there, and uploads the folder.

    The token is that of `hf auth login`, or HF_TOKEN.

    Args:
      endpoint: the hub's address; None: HF_ENDPOINT, or the public hub's.

    Returns the address of the repository. Raises ValueError, in one line, where it cannot be done;
    the folder stays as it is.
    """
    api = HfApi(endpoint=endpoint)
    try:
        url = api.create_repo(name, private=private, exist_ok=True)
        told = "Upload a policy of permix_jax"
        api.upload_folder(repo_id=url.repo_id, folder_path=folder, commit_message=told)
        return str(url)
    except HFValidationError as error:
        what = f"{_line(error)}; name it ORG/NAME"
    except LocalTokenNotFoundError:
        what = "there is no login; call `hf auth login`"
    except HfHubHTTPError as error:
        what = _line(error)
        if error.response.status_code in (401, 403):
            what += "; log in with a token that may write there: `hf auth login`"
    except (OSError, _HttpError) as error:
        what = f"the hub does not answer: {_line(error)}"
    raise ValueError(f"--push={name}: {what}. {folder} is written: hf upload {name} {folder}")


def _line(error: Exception) -> str:
    """The first line of a message, without its full stop."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(". ")
