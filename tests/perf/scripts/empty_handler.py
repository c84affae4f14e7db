"""A FastAPI handler that reads the same body and does nothing with it; served by uvicorn's command."""

from fastapi import FastAPI, Request

app = FastAPI()


@app.post("/analyze-image")
async def read_body(request: Request) -> dict[str, str]:
    await request.body()
    return {}
