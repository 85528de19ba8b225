"""The server: routes over jobs and archive. Importing this imports no web framework; its libraries are an extra."""

from typing import TYPE_CHECKING

from kinetograph.errors import MissingExtra
from kinetograph.server.settings import Settings

if TYPE_CHECKING:
    from fastapi import FastAPI

__all__ = ["Settings", "check", "create_app", "serve"]


def check() -> None:
    """Refuse early what needs libraries that are not here. Raises MissingExtra."""
    try:
        import alembic  # noqa: F401
        import fastapi  # noqa: F401
        import limits  # noqa: F401
        import prometheus_client  # noqa: F401
        import python_multipart  # noqa: F401
        import sqlalchemy  # noqa: F401
        import uvicorn  # noqa: F401
    except ImportError as error:
        message = f"the server needs {error.name}, which is not installed"
        raise MissingExtra(message, hint="pip install 'kinetograph[server]'") from error


def serve(settings: Settings) -> None:
    """Serve until SIGTERM or Ctrl-C, with so many worker processes of its own. Raises KinetographError."""
    check()
    from kinetograph.server import running

    running.serve(settings)


def create_app(settings: Settings) -> "FastAPI":
    """The application alone, for another ASGI server: `kinetograph worker` makes its videos."""
    check()
    from kinetograph.server import app

    return app.create(settings)
