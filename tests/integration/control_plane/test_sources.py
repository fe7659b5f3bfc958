"""Sources over HTTP: put, listed in pages, run, removed; and what is refused."""

URL = "https://git.example.com/team/catalogue.git"


async def test_a_source_is_put_shown_run_and_removed(client) -> None:
    made = await client.ask("PUT", "sources/catalogue", {"spec": {"url": URL, "drift": "mend"}})
    assert (made.status, made.json["spec"]["url"], made.json["spec"]["branch"]) == (200, URL, "main")
    again = await client.ask("PUT", "sources/catalogue", {"spec": {"url": URL, "drift": "mend"}})
    assert again.json == made.json
    commit = "a" * 40
    run = await client.ask("POST", "sources/catalogue/run", {"allow_prune": commit})
    assert run.json["state"]["confirmed_prune"] == commit
    assert (await client.ask("POST", "sources/catalogue/run")).status == 200
    assert (await client.ask("GET", "sources/catalogue")).json["spec"]["drift"] == "mend"
    assert (await client.ask("DELETE", "sources/catalogue")).json == {"name": "catalogue", "agents": 0}
    for method, path in (("GET", ""), ("DELETE", ""), ("POST", "/run")):
        gone = await client.ask(method, f"sources/catalogue{path}")
        assert (gone.status, gone.json["code"]) == (404, "unknown-source")


async def test_sources_come_in_pages(client) -> None:
    for number in range(5):
        await client.ask("PUT", f"sources/s{number}", {"spec": {"url": URL}})
    first = (await client.ask("GET", "sources?limit=3")).json
    assert [one["name"] for one in first["sources"]] == ["s0", "s1", "s2"]
    rest = (await client.ask("GET", f"sources?after={first['next']}")).json
    assert [one["name"] for one in rest["sources"]] == ["s3", "s4"] and rest["next"] is None


async def test_what_can_not_be_followed_is_refused(client) -> None:
    for spec, status, code in (
        ({"url": "https://elsewhere.example.com/x"}, 422, "address-refused"),
        ({"url": "file:///etc"}, 422, "address-refused"),
        ({"url": "ssh://-oProxyCommand=x/y"}, 422, "address-refused"),
        ({"url": URL, "branch": "--upload-pack=x"}, 422, "invalid-source"),
        ({"url": URL, "credential": "secret:git_other_token"}, 422, "invalid-source"),
        ({"url": URL, "credential": "hunter2"}, 400, "invalid-request"),
        ({"url": URL, "path": "/etc"}, 400, "invalid-request"),
        ({"url": URL, "colour": "red"}, 400, "invalid-request"),
        ({}, 400, "invalid-request"),
    ):
        answer = await client.ask("PUT", "sources/catalogue", {"spec": spec})
        assert (answer.status, answer.json["code"]) == (status, code), spec
    assert (await client.ask("PUT", "sources/No%20Name", {"spec": {"url": URL}})).json["code"] == "invalid-source"
    assert (await client.ask("GET", "sources?limit=0")).status == 400
    await client.ask("PUT", "sources/catalogue", {"spec": {"url": URL}})
    short = await client.ask("POST", "sources/catalogue/run", {"allow_prune": "abc"})
    assert (short.status, short.json["code"]) == (422, "invalid-source")
