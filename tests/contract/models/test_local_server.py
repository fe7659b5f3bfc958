"""The bundled model's process: who may ask it, and what it says."""


async def test_it_answers_with_the_key_and_names_no_path(local_model, client):
    headers = {"Authorization": "Bearer a-key", "Origin": "http://elsewhere"}
    question = {"messages": [{"role": "user", "content": "What is the capital of France?"}], "max_tokens": 16}
    async with client.post(f"{local_model}/chat/completions", json=question, headers=headers) as answer:
        said = await answer.json()
        assert said["choices"][0]["message"]["content"].strip()
        assert 0 < said["usage"]["completion_tokens"] <= 16
        assert said["model"] == "smollm2-135m-instruct"  # and not a path of this machine
        assert not answer.headers.get("Access-Control-Allow-Origin")


async def test_it_wants_the_key(local_model, client):
    for headers in ({}, {"Authorization": "Bearer wrong"}):
        async with client.post(f"{local_model}/chat/completions", json={}, headers=headers) as answer:
            assert answer.status == 401
