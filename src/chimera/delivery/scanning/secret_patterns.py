"""What credentials look like: the forms that their issuers give them, as a table.

A form is only looked for in text that holds one of its words, which is a plain search and many times faster than a
pattern. A form's group `secret` (else the whole match) is the credential itself. Forms without a mark of their own (a
password, a key without prefix) are found by what they are assigned to; `secrets` has that rule.
"""

import base64
import binascii
import itertools
import re
from collections.abc import Callable, Iterator
from typing import NamedTuple

import msgspec


class Form(NamedTuple):
    """One kind of credential: its rule, words that must be in the text (small letters), and its pattern."""

    rule: str
    what: str
    words: tuple[str, ...]
    pattern: re.Pattern[str]
    holds: Callable[[str], bool] | None = None


def _is_jwt(text: str) -> bool:
    head = text.split(".")[0]
    try:
        data = msgspec.json.decode(base64.urlsafe_b64decode(head + "=" * (-len(head) % 4)))
    except (ValueError, binascii.Error, msgspec.DecodeError):
        return False
    return isinstance(data, dict) and "alg" in data


def _varied(text: str) -> bool:
    """Not one made by hand for a page of documentation, such as `xxxxxxxx`, `abcdefgh…` or `1234567890…`."""
    body = re.sub(r"[^A-Za-z0-9]", "", text)[4:]
    steps = [ord(after) - ord(before) for before, after in itertools.pairwise(body)]
    even = max((steps.count(step) for step in (0, 1)), default=0)
    return bool(body) and len(set(body)) > 4 and even < len(body) * 0.6


def _form(rule: str, what: str, words: str, pattern: str, holds: Callable[[str], bool] | None = _varied) -> Form:
    return Form(rule, what, tuple(words.split()), re.compile(pattern), holds)


_B, _E = r"(?<![A-Za-z0-9_])", r"(?![A-Za-z0-9_])"

FORMS: tuple[Form, ...] = (
    _form(
        "private-key",
        "a private key",
        "private putty-user-key age-secret-key-",
        r"-----BEGIN (?:[A-Z0-9 ]{1,20} )?PRIVATE KEY(?: BLOCK)?-----|PuTTY-User-Key-File-[23]"
        r"|AGE-SECRET-KEY-1[A-Z0-9]{58}",
        None,
    ),
    _form("aws-key", "an access key of AWS", "akia asia abia acca", rf"{_B}(?:AKIA|ASIA|ABIA|ACCA)[A-Z2-7]{{16}}{_E}"),
    _form(
        "aws-secret",
        "a secret key of AWS",
        "aws",
        r"(?i:aws.{0,20}?(?:secret|sk).{0,20}?[\"'=:\s]+)(?P<secret>[A-Za-z0-9/+]{40})(?![A-Za-z0-9/+=])",
    ),
    _form("github-token", "a token of GitHub", "ghp_ gho_ ghu_ ghs_ ghr_", rf"{_B}gh[pousr]_[A-Za-z0-9]{{36,255}}{_E}"),
    _form("github-token", "a token of GitHub", "github_pat_", rf"{_B}github_pat_[A-Za-z0-9_]{{22,255}}{_E}"),
    _form(
        "gitlab-token",
        "a token of GitLab",
        "glpat- gldt- glrt- glptt- glcbt- glft- glsoat- glimt- glagent-",
        rf"{_B}gl(?:pat|dt|rt|ptt|cbt|ft|soat|imt|agent)-[A-Za-z0-9_.-]{{20,300}}",
    ),
    _form(
        "slack-token",
        "a token of Slack",
        "xoxa- xoxb- xoxe- xoxp- xoxr- xoxs- xapp-",
        rf"{_B}(?:xox[abeprs]|xapp)-[0-9A-Za-z-]{{10,300}}",
    ),
    _form(
        "slack-webhook",
        "an address that lets anyone post to Slack",
        "hooks.slack.com",
        r"hooks\.slack\.com/(?:services|workflows|triggers)/[A-Za-z0-9+/]{20,100}",
    ),
    _form(
        "stripe-key",
        "a key of Stripe",
        "sk_live_ rk_live_ sk_test_ rk_test_ whsec_",
        rf"{_B}(?:[sr]k_(?:live|test)_[A-Za-z0-9]{{16,250}}|whsec_[A-Za-z0-9+/]{{24,100}})",
    ),
    _form(
        "anthropic-key", "a key of Anthropic", "sk-ant-", rf"{_B}sk-ant-[a-z]{{2,10}}\d{{2}}-[A-Za-z0-9_-]{{20,200}}"
    ),
    _form(
        "openai-key",
        "a key of OpenAI, or of one who uses its form",
        "sk-",
        rf"{_B}sk-(?!ant-)(?:(?:proj|svcacct|admin|or-v1)-[A-Za-z0-9_-]{{20,250}}|[A-Za-z0-9]{{32,100}})(?![A-Za-z0-9-])",
    ),
    _form(
        "google-key",
        "a key of Google",
        "aiza gocspx- ya29.",
        rf"{_B}(?:AIza[A-Za-z0-9_-]{{35}}|GOCSPX-[A-Za-z0-9_-]{{28}}|ya29\.[A-Za-z0-9_-]{{50,500}})(?![A-Za-z0-9_-])",
    ),
    _form(
        "huggingface-token", "a token of Hugging Face", "hf_ api_org_", rf"{_B}(?:hf|api_org)_[A-Za-z0-9]{{30,60}}{_E}"
    ),
    _form("groq-key", "a key of Groq", "gsk_", rf"{_B}gsk_[A-Za-z0-9]{{40,60}}{_E}"),
    _form("replicate-token", "a token of Replicate", "r8_", rf"{_B}r8_[A-Za-z0-9]{{37}}{_E}"),
    _form("perplexity-key", "a key of Perplexity", "pplx-", rf"{_B}pplx-[A-Za-z0-9]{{40,60}}{_E}"),
    _form("pypi-token", "a token of PyPI", "pypi-ageichlwas5vcmc", r"pypi-AgEIcHlwaS5vcmc[A-Za-z0-9_-]{50,1000}"),
    _form(
        "npm-token",
        "a token of npm",
        "npm_ _authtoken",
        rf"{_B}npm_[A-Za-z0-9]{{36}}{_E}|_authToken\s*=\s*(?P<secret>[A-Za-z0-9_.-]{{16,200}})",
    ),
    _form("docker-token", "a token of Docker Hub", "dckr_pat_ dckr_oat_", rf"{_B}dckr_[po]at_[A-Za-z0-9_-]{{20,60}}"),
    _form(
        "jwt",
        "a JSON web token",
        "eyj",
        r"(?<![A-Za-z0-9_-])eyJ[A-Za-z0-9_-]{8,2000}\.eyJ[A-Za-z0-9_-]{8,4000}\.[A-Za-z0-9_-]{10,1000}",
        _is_jwt,
    ),
    _form(
        "azure-key",
        "a key of Azure",
        "accountkey sharedaccesskey",
        r"(?:AccountKey|SharedAccessKey)\s*=\s*(?P<secret>[A-Za-z0-9+/]{42,86}={1,2})",
    ),
    _form(
        "azure-secret",
        "a client secret of Azure",
        "q~",
        r"(?<![A-Za-z0-9_~.-])[A-Za-z0-9_~.]{3}\dQ~[A-Za-z0-9_~.-]{31,34}(?![A-Za-z0-9_~.-])",
    ),
    _form("sendgrid-key", "a key of SendGrid", "sg.", rf"{_B}SG\.[A-Za-z0-9_-]{{16,32}}\.[A-Za-z0-9_-]{{32,64}}"),
    _form("twilio-key", "a key of Twilio", "sk", rf"{_B}SK[0-9a-f]{{32}}{_E}"),
    _form("mailchimp-key", "a key of Mailchimp", "-us", rf"{_B}[0-9a-f]{{32}}-us\d{{1,2}}{_E}"),
    _form(
        "telegram-token",
        "a token of a Telegram bot",
        ":aa",
        r"(?<![A-Za-z0-9_/.-])\d{8,10}:AA[A-Za-z0-9_-]{33}(?![A-Za-z0-9_-])",
    ),
    _form(
        "discord-token",
        "a token of a Discord bot",
        "m n o",
        rf"{_B}[MNO][A-Za-z0-9_-]{{23,27}}\.[A-Za-z0-9_-]{{6}}\.[A-Za-z0-9_-]{{27,40}}(?![A-Za-z0-9_-])",
    ),
    _form(
        "square-token",
        "a token of Square",
        "sq0csp- sq0atp- eaaa",
        r"sq0(?:csp|atp)-[A-Za-z0-9_-]{22,60}|(?<![A-Za-z0-9_-])EAAA[A-Za-z0-9_-]{60}(?![A-Za-z0-9_-])",
    ),
    _form(
        "digitalocean-token",
        "a token of DigitalOcean",
        "dop_v1_ doo_v1_ dor_v1_",
        rf"{_B}do[por]_v1_[0-9a-f]{{64}}{_E}",
    ),
    _form("databricks-token", "a token of Databricks", "dapi", rf"{_B}dapi[0-9a-f]{{32}}(?:-\d)?{_E}"),
    _form("vault-token", "a token of Vault", "hvs. hvb. hvr.", rf"{_B}hv[sbr]\.[A-Za-z0-9_-]{{24,300}}"),
    _form(
        "shopify-token",
        "a token of Shopify",
        "shpat_ shpca_ shppa_ shpss_",
        rf"{_B}shp(?:at|ca|pa|ss)_[0-9a-fA-F]{{32}}{_E}",
    ),
    _form(
        "grafana-token",
        "a token of Grafana",
        "glsa_ glc_",
        rf"{_B}(?:glsa_[A-Za-z0-9]{{32}}_[0-9a-fA-F]{{8}}|glc_[A-Za-z0-9+/]{{32,400}}={{0,2}})",
    ),
    _form("linear-key", "a key of Linear", "lin_api_", rf"{_B}lin_api_[A-Za-z0-9]{{40}}{_E}"),
    _form("notion-token", "a token of Notion", "ntn_", rf"{_B}ntn_[A-Za-z0-9]{{40,60}}{_E}"),
    _form("postman-key", "a key of Postman", "pmak-", rf"{_B}PMAK-[0-9a-f]{{24}}-[0-9a-f]{{34}}{_E}"),
    _form("newrelic-key", "a key of New Relic", "nrak- nraa-", rf"{_B}NRA[AK]-[A-Z0-9]{{27}}{_E}"),
    _form(
        "terraform-token", "a token of HCP Terraform", ".atlasv1.", r"[A-Za-z0-9]{14}\.atlasv1\.[A-Za-z0-9_=-]{60,70}"
    ),
    _form("artifactory-token", "a token of Artifactory", "akc", rf"{_B}AKC[A-Za-z0-9]{{40,100}}{_E}"),
    _form("chimera-key", "a key of Chimera", "chk_", rf"{_B}chk_[0-9a-z]{{16}}_[0-9a-z]{{50,54}}{_E}"),
)


def forms_in(text: str) -> tuple[Form, ...]:
    """The forms that may be in a text, by their words."""
    lowered = text.lower()
    return tuple(form for form in FORMS if any(word in lowered for word in form.words))


def matches(text: str, forms: tuple[Form, ...]) -> Iterator[tuple[Form, str]]:
    """Each credential of one of `forms` in `text`: its form, and itself."""
    for form in forms:
        for match in form.pattern.finditer(text):
            secret = (match["secret"] if "secret" in form.pattern.groupindex else None) or match[0]
            if form.holds is None or form.holds(secret):
                yield form, secret
