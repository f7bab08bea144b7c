"""Programs of other vendors' clients, each run by itself: ``python -m tests.e2e.vendor_clients NAME URL``.

Each writes one JSON object. They run in processes of their own, since their libraries warn and start threads.
"""

import asyncio
import json
import os
import sys
from collections.abc import Callable
from typing import Any

TEXTS = ["parse a JSON string", "plant a tree"]
QUERY = "decode JSON"
#: A server without keys takes any.
KEY = os.environ.get("CLIENT_KEY", "any")


def openai_sync(url: str) -> dict[str, Any]:
    import openai

    client = openai.OpenAI(base_url=f"{url}/v1", api_key=KEY)
    # Without a format the client asks for base64, and decodes it.
    plain = client.embeddings.create(model="penstock", input=TEXTS)
    floats = client.embeddings.create(model=plain.model, input=TEXTS, encoding_format="float")
    query = client.embeddings.create(model="penstock:query", input=QUERY, user="me", dimensions=384)
    wrong: dict[str, list[Any]] = {}
    for name, asked in {
        "token ids": {"input": [[1, 2], [3]]},
        "empty list": {"input": []},
        "empty text": {"input": ""},
        "too many": {"input": ["x"] * 2049},
        "dimensions": {"input": "x", "dimensions": 100},
        "model": {"input": "x", "model": "text-embedding-3-small"},
    }.items():
        try:
            client.embeddings.create(**{"model": "penstock", **asked})
        except openai.APIStatusError as error:
            wrong[name] = [type(error).__name__, error.status_code, error.code, error.param, error.message]
    return {
        "vectors": [one.embedding for one in plain.data],
        "floats": [one.embedding for one in floats.data],
        "query": query.data[0].embedding,
        "usage": plain.usage.model_dump(),
        "models": [one.id for one in client.models.list()],
        "model": client.models.retrieve("penstock").id,
        "many": len(client.embeddings.create(model="penstock", input=["x"] * 2048).data),
        "request_id": plain._request_id,
        "wrong": wrong,
    }


def openai_async(url: str) -> dict[str, Any]:
    import openai

    async def run() -> list[list[float]]:
        async with openai.AsyncOpenAI(base_url=f"{url}/v1", api_key=KEY) as client:
            each = await asyncio.gather(*(client.embeddings.create(model="penstock", input=text) for text in TEXTS))
        return [one.data[0].embedding for one in each]

    return {"vectors": asyncio.run(run())}


def openai_retries(url: str) -> dict[str, Any]:
    """Ask more than the rate allows: the client waits as it is told, and every request is answered."""
    import openai

    client = openai.OpenAI(base_url=f"{url}/v1", api_key=KEY, max_retries=8)
    none = openai.OpenAI(base_url=f"{url}/v1", api_key=KEY, max_retries=0)
    answered = sum(len(client.embeddings.create(model="penstock", input=text).data) for text in TEXTS * 2)
    try:
        for _ in range(3):
            none.embeddings.create(model="penstock", input="x")
    except openai.RateLimitError as error:
        return {"answered": answered, "code": error.code, "after": error.response.headers["retry-after"]}
    return {"answered": answered}


def openai_once(url: str) -> dict[str, Any]:
    """Ask while others hold every place in flight."""
    import openai

    client = openai.OpenAI(base_url=f"{url}/v1", api_key=KEY, max_retries=8)
    return {"answered": len(client.embeddings.create(model="penstock", input="x").data)}


def wrong_keys(url: str) -> dict[str, Any]:
    """Ask with a key that the server does not know; return how each client tells it."""
    import cohere
    import openai
    from huggingface_hub import InferenceClient

    told, wrong = {}, "psk_unknown"
    for name, ask in {
        "openai": lambda: openai.OpenAI(base_url=f"{url}/v1", api_key=wrong).embeddings.create(model="m", input="x"),
        "cohere": lambda: cohere.ClientV2(wrong, base_url=url).rerank(model="m", query="x", documents=["x"]),
        "hugging_face": lambda: InferenceClient(model=f"{url}/embed", token=wrong).feature_extraction("x"),
    }.items():
        try:
            ask()
        except Exception as error:  # noqa: BLE001 - each has errors of its own
            told[name] = [type(error).__name__, str(error)]
    return told


def cohere(url: str) -> dict[str, Any]:
    import cohere

    client = cohere.ClientV2(api_key=KEY, base_url=url)
    ranked = client.rerank(model="penstock", query=QUERY, documents=TEXTS, top_n=1, max_tokens_per_doc=64, priority=3)
    older = cohere.Client(api_key=KEY, base_url=url).rerank(model="penstock", query=QUERY, documents=TEXTS)
    wrong = []
    for asked in ({"model": "rerank-v3.5"}, {"documents": []}):
        try:
            client.rerank(**{"model": "penstock", "query": QUERY, "documents": TEXTS, **asked})
        except cohere.core.ApiError as error:
            wrong.append([type(error).__name__, error.status_code, error.body["message"]])
    return {
        "ranked": [[one.index, one.relevance_score] for one in ranked.results],
        "older": [one.index for one in older.results],
        "id": ranked.id,
        "wrong": wrong,
    }


def cohere_retries(url: str) -> dict[str, Any]:
    import cohere
    from cohere.core import RequestOptions

    client, options = cohere.ClientV2(api_key=KEY, base_url=url), RequestOptions(max_retries=8)
    ask = {"model": "penstock", "query": QUERY, "documents": TEXTS, "request_options": options}
    return {"answered": sum(len(client.rerank(**ask).results) for _ in range(4))}


def langchain(url: str) -> dict[str, Any]:
    from langchain_openai import OpenAIEmbeddings

    model = OpenAIEmbeddings(model="penstock", base_url=f"{url}/v1", api_key=KEY, check_embedding_ctx_length=False)
    return {"vectors": model.embed_documents(TEXTS), "query": model.embed_query(QUERY)}


def llama_index(url: str) -> dict[str, Any]:
    from llama_index.core.schema import NodeWithScore, TextNode
    from llama_index.embeddings.openai_like import OpenAILikeEmbedding
    from llama_index.embeddings.text_embeddings_inference import TextEmbeddingsInference
    from llama_index.postprocessor.cohere_rerank import CohereRerank

    likes = OpenAILikeEmbedding(model_name="penstock", api_base=f"{url}/v1", api_key=KEY)
    tei = TextEmbeddingsInference(base_url=url, model_name="penstock", auth_token=KEY)
    nodes = [NodeWithScore(node=TextNode(text=text), score=0.0) for text in reversed(TEXTS)]
    reranker = CohereRerank(api_key=KEY, base_url=url, model="penstock", top_n=1)
    return {
        "vectors": likes.get_text_embedding_batch(TEXTS),
        "query": likes.get_query_embedding(QUERY),
        "tei": tei.get_text_embedding_batch(TEXTS),
        "first": reranker.postprocess_nodes(nodes, query_str=QUERY)[0].node.get_content(),
    }


def haystack(url: str) -> dict[str, Any]:
    from haystack import Document
    from haystack.components.embedders import OpenAIDocumentEmbedder, OpenAITextEmbedder
    from haystack.utils import Secret
    from haystack_integrations.components.rankers.huggingface_api import HuggingFaceTEIRanker

    told = {"api_key": Secret.from_token(KEY), "api_base_url": f"{url}/v1"}
    documents = [Document(content=text) for text in TEXTS]
    embedded = OpenAIDocumentEmbedder(model="penstock:document", **told).run(documents=documents)
    query = OpenAITextEmbedder(model="penstock:query", **told).run(text=QUERY)
    ranked = HuggingFaceTEIRanker(url=url, top_k=1, token=told["api_key"]).run(query=QUERY, documents=documents)
    return {
        "vectors": [one.embedding for one in embedded["documents"]],
        "query": query["embedding"],
        "first": ranked["documents"][0].content,
    }


def hugging_face(url: str) -> dict[str, Any]:
    from huggingface_hub import InferenceClient
    from huggingface_hub.errors import HfHubHTTPError

    client = InferenceClient(model=f"{url}/embed", token=KEY)
    told = {"vectors": client.feature_extraction(TEXTS, normalize=True, truncate=True).tolist()}
    told["query"] = client.feature_extraction(QUERY, prompt_name="query").tolist()[0]
    try:
        client.feature_extraction(QUERY, normalize=False)
    except HfHubHTTPError as error:
        told["wrong"] = [error.response.status_code, error.response.json()["error_type"]]
    return told


PROGRAMS: dict[str, Callable[[str], dict[str, Any]]] = {
    one.__name__: one
    for one in (
        openai_sync,
        openai_async,
        openai_retries,
        openai_once,
        cohere,
        cohere_retries,
        langchain,
        llama_index,
        haystack,
        hugging_face,
        wrong_keys,
    )
}

if __name__ == "__main__":
    sys.stdout.write(json.dumps(PROGRAMS[sys.argv[1]](sys.argv[2])))
