"""`/docs`: the API on one page, made from its OpenAPI description."""

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse

router = APIRouter(include_in_schema=False)


@router.get("/docs")
def docs(request: Request) -> HTMLResponse:
    """Every route: what it takes, what it answers."""
    from hazard.web.rendering import render

    return render("docs.j2", here="API", routes=routes_of(request.app.openapi()))


def routes_of(openapi: dict) -> list[dict]:
    """Rows for the page, in the order of the description."""
    return [
        {
            "method": method.upper(),
            "path": path,
            "said": operation.get("description") or operation.get("summary", ""),
            "parameters": [
                {"name": one["name"], "place": one["in"], "is_required": one.get("required", False)}
                for one in operation.get("parameters", [])
            ],
            "takes": list(operation.get("requestBody", {}).get("content", {})),
            "answers": [
                {"status": status, "said": answer.get("description", ""), "kinds": list(answer.get("content", {}))}
                for status, answer in sorted(operation["responses"].items())
            ],
        }
        for path, operations in openapi["paths"].items()
        for method, operation in operations.items()
    ]
