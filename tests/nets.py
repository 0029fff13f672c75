"""Small nets for tests: real parts that load in milliseconds and can be checked in the head.

`tiny_encoder` writes a real but random BERT (a few thousand parameters) to a directory, so that everything
that reads weights, tokenises and runs a forward is the production code. Its vectors mean nothing.
`WordOverlapEncoder` has the interface of `models.dense.DenseEncoder` without weights: the cosine of two
texts is the share of words they have in common, so rankings are predictable by eye. It needs no torch.
`tiny_sparse_encoder` and `WordOverlapSparseEncoder` are the same two for `models.sparse.SparseEncoder`;
`WordOverlapLateEncoder` is the second for `models.late.LateEncoder`, `WordOverlapCrossNet` for
`models.cross.CrossEncoder`.
`tiny_cross_encoder` writes a random BERT that scores pairs, `tiny_causal` a random decoder, as
rerankers in context read them.
"""

import json
import math
import re
import string
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from models.csr import Csr

WORD = re.compile(r"\w+")
SPECIALS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
WORDS = [
    "the",
    "of",
    "and",
    "to",
    "in",
    "is",
    "a",
    "tide",
    "moon",
    "sea",
    "water",
    "cat",
    "dog",
    "rain",
    "sun",
]
PIECES = ["##" + piece for piece in ("s", "ing", "ed", "er", "al", *string.ascii_lowercase, *string.digits)]
SIGNS = [*string.punctuation, *string.ascii_lowercase, *string.digits]
VOCABULARY = list(dict.fromkeys(SPECIALS + WORDS + SIGNS + PIECES))


def tiny_encoder(directory: Path, *, max_tokens: int = 256, dim: int = 32, seed: int = 7) -> Path:
    """Write a random two-layer BERT with mean pooling in sentence-transformers layout; returns `directory`.

    Load it with `DenseEncoder.load(str(tiny_encoder(tmp_path / "net")))`. Lower-case words outside
    `VOCABULARY` fall into letters, so "tides" is "tide", "##s" and "owl" is "o", "##w", "##l".
    """
    _write_bert(directory, "BertModel", max_tokens, dim, seed)
    _write_layout(directory, max_tokens, dim)
    return directory


def tiny_sparse_encoder(directory: Path, *, max_tokens: int = 256, dim: int = 32, seed: int = 7) -> Path:
    """Write a random two-layer BERT with a masked-language-model head (SPLADE); returns `directory`.

    Load it with `SparseEncoder.load(str(tiny_sparse_encoder(tmp_path / "net")))`. About half of `VOCABULARY`
    gets a weight.
    """
    _write_bert(directory, "BertForMaskedLM", max_tokens, dim, seed)
    return directory


def tiny_classifier(directory: Path, *, max_tokens: int = 256, classes: int = 2, seed: int = 7) -> Path:
    """Write a random two-layer BERT that tells classes apart; returns `directory`.

    As a scorer of passages: `load_quality(str(tiny_classifier(tmp_path / "net")))`.
    """
    _write_bert(directory, "BertForSequenceClassification", max_tokens, 32, seed, num_labels=classes)
    return directory


def tiny_cross_encoder(
    directory: Path, *, max_tokens: int = 256, labels: int = 1, seed: int = 7, **config_keys: Any
) -> Path:
    """Write a random two-layer BERT that scores pairs, as old versions of sentence-transformers wrote them;
    returns `directory`.

    Load it with `CrossEncoder.load(str(tiny_cross_encoder(tmp_path / "net")))`.
    """
    kind = "BertForSequenceClassification"
    _write_bert(directory, kind, max_tokens, 32, seed, num_labels=labels, **config_keys)
    return directory


def _write_bert(directory: Path, kind: str, max_tokens: int, dim: int, seed: int, **config_keys: Any) -> None:
    import torch
    import transformers
    from safetensors.torch import save_model

    directory.mkdir(parents=True, exist_ok=True)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        config = transformers.BertConfig(
            architectures=[kind],
            vocab_size=len(VOCABULARY),
            hidden_size=dim,
            num_hidden_layers=2,
            num_attention_heads=4,
            intermediate_size=2 * dim,
            max_position_embeddings=max_tokens,
            initializer_range=0.3,
            **config_keys,
        )
        net = getattr(transformers, kind)(config)
    config.save_pretrained(directory)
    save_model(net, str(directory / "model.safetensors"), {"format": "pt"})
    write_tokenizer(directory, max_tokens)


def write_tokenizer(directory: Path, max_tokens: int) -> None:
    """Write the word pieces of `VOCABULARY`, with [CLS] before and [SEP] after a text."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

    ids = {token: number for number, token in enumerate(VOCABULARY)}
    tokenizer = Tokenizer(models.WordPiece(ids, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", ids["[SEP]"]), ("[CLS]", ids["[CLS]"]))
    tokenizer.add_special_tokens(SPECIALS)
    tokenizer.save(str(directory / "tokenizer.json"))
    names = {f"{name.strip('[]').lower()}_token": name for name in SPECIALS}
    _write_json(
        directory / "tokenizer_config.json",
        {"tokenizer_class": "BertTokenizer", "model_max_length": max_tokens, "do_lower_case": True, **names},
    )


def tiny_causal(
    directory: Path,
    family: str = "llama",
    *,
    layers: int = 4,
    seed: int = 7,
    chat: bool = False,
    max_tokens: int = 4096,
    **config_keys: Any,
) -> Path:
    """Write a random decoder (hidden 64, 4 heads, 2 key-value heads of 16 numbers); returns `directory`.

    `family` is a model type of `transformers`: "llama", "mistral", "qwen2", "qwen3", "gemma2" ….  Text and
    tokens map one to one: a word of `WORDS` with the space before it is one token, any other byte is one.
    No token is added before or after a text. `chat` adds a chat template of two special tokens.
    """
    import torch
    import transformers

    directory.mkdir(parents=True, exist_ok=True)
    keys = {"head_dim": 16} if family.startswith(("gemma", "qwen3")) else {}
    tokens = write_causal_tokenizer(directory, chat=chat)
    config = transformers.AutoConfig.for_model(
        family,
        vocab_size=tokens,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=layers,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=max_tokens,
        initializer_range=0.3,
        **{"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, **keys, **config_keys},
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net = transformers.AutoModelForCausalLM.from_config(config)
    net.save_pretrained(directory)
    return directory


CHAT = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def write_causal_tokenizer(directory: Path, *, chat: bool = False) -> int:
    """Write bytes and, with a space before them, the words of `WORDS`; returns the number of tokens."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    specials = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    pieces, merges = [*specials, *sorted(pre_tokenizers.ByteLevel.alphabet())], []
    for word in WORDS:
        piece = "Ġ"
        for letter in word:
            merges.append((piece, letter))
            piece += letter
            pieces.append(piece)
    pieces, merges = list(dict.fromkeys(pieces)), list(dict.fromkeys(merges))
    tokenizer = Tokenizer(models.BPE({piece: at for at, piece in enumerate(pieces)}, merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(specials)
    tokenizer.save(str(directory / "tokenizer.json"))
    names = dict(zip(("pad_token", "bos_token", "eos_token"), specials, strict=True))
    template = {"chat_template": CHAT} if chat else {}
    _write_json(
        directory / "tokenizer_config.json",
        {"tokenizer_class": "PreTrainedTokenizerFast", **names, **template},
    )
    return len(pieces)


def _write_layout(directory: Path, max_tokens: int, dim: int) -> None:
    modules = [("", "Transformer"), ("1_Pooling", "Pooling")]
    _write_json(
        directory / "modules.json",
        [
            {"idx": number, "name": str(number), "path": path, "type": f"sentence_transformers.models.{kind}"}
            for number, (path, kind) in enumerate(modules)
        ],
    )
    _write_json(
        directory / "sentence_bert_config.json", {"max_seq_length": max_tokens, "do_lower_case": False}
    )
    _write_json(
        directory / "1_Pooling" / "config.json",
        {"word_embedding_dimension": dim, "pooling_mode_mean_tokens": True},
    )


def _write_json(path: Path, value: object) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(value))


class WordOverlapEncoder:
    """Words in, a hashed bag of words out: float32, 64 numbers, unit length; order of words is ignored.

    A token is a lower-cased word; each text has two special tokens around it. A text without words gets a
    direction of its own, which no word shares. Two words share a direction with probability 1/63.
    """

    name = "word-overlap"
    fingerprint = "word-overlap-64"
    dim = 64
    dtype = "float32"
    pooling = "mean"
    normalizes = True

    def __init__(self, max_tokens: int = 256) -> None:
        self.max_tokens = max_tokens

    def tokenize(self, texts: Sequence[str], kind: str = "document") -> list[list[int]]:
        return [
            [0, *(1 + crc32(word.encode("utf-8", "replace")) % (self.dim - 1) for word in words), 0]
            for words in (WORD.findall(text.lower())[: self.max_tokens - 2] for text in texts)
        ]

    def forward(self, tokens: Sequence[Sequence[int]]) -> NDArray[np.float32]:
        vectors = np.zeros((len(tokens), self.dim), dtype=np.float32)
        for vector, ids in zip(vectors, tokens, strict=True):
            words = ids[1:-1] or [0]
            np.add.at(vector, words, 1.0)
            vector /= math.sqrt(float(vector @ vector))
        return vectors

    def encode(
        self,
        texts: Sequence[str],
        kind: str = "document",
        budget: int = 4096,
        progress: Callable[[int], None] | None = None,
    ) -> NDArray[np.float32]:
        vectors = self.forward(self.tokenize(texts, kind))
        if progress is not None:
            progress(len(texts))
        return vectors

    supports_late_chunking = True

    def encode_chunks(
        self,
        texts: Sequence[str],
        chunks: Sequence[Sequence[tuple[int, int]]],
        progress: Callable[[int], None] | None = None,
    ) -> list[NDArray[np.float32]]:
        """Nothing mixes words, so a chunk that knows all of its text is what it is by itself."""
        parts = [[text[begin:end] for begin, end in spans] for text, spans in zip(texts, chunks, strict=True)]
        return [self.encode(each, progress=progress) for each in parts]

    def offsets(self, texts: Sequence[str]) -> list[NDArray[np.int64]]:
        return [
            np.array([match.span() for match in WORD.finditer(text)], dtype=np.int64).reshape(-1, 2)
            for text in texts
        ]

    def text(self, ids: Sequence[int]) -> str:
        """A word of each direction."""
        if strange := [each for each in ids if not 0 <= each < self.dim]:
            raise ValueError(f"{strange[0]} is no token of {self.name}")
        words = {self.tokenize([f"w{number}"])[0][1]: f"w{number}" for number in range(1000)}
        return " ".join(words[each] for each in ids if each)


class SlowEncoder(WordOverlapEncoder):
    """The same, and a forward takes a twentieth of a second."""

    def forward(self, tokens: Sequence[Sequence[int]]) -> NDArray[np.float32]:
        time.sleep(0.05)
        return super().forward(tokens)


class WordOverlapSparseEncoder:
    """Words in, the set of words out: weight 1.0 per distinct word, whose term is a hash of it.

    A token is a lower-cased word; each text has two special tokens (0) around it, which get no weight. The
    score of two texts is the number of distinct words they share. Two words share a term once in 60,000.
    """

    name = "word-overlap-sparse"
    fingerprint = "word-overlap-sparse"
    vocabulary = 60_000
    ceiling = 8.0
    dtype = "float32"
    idf: NDArray[np.float32] | None = None

    def __init__(self, max_tokens: int = 256) -> None:
        self.max_tokens = max_tokens
        self._seen: dict[int, str] = {}

    def tokenize(self, texts: Sequence[str], kind: str = "document") -> list[list[int]]:
        return [[0, *map(self._term, WORD.findall(text.lower())[: self.max_tokens - 2]), 0] for text in texts]

    def forward(self, tokens: Sequence[Sequence[int]]) -> Csr:
        rows = [np.unique(np.array(ids[1:-1], np.int32)) for ids in tokens]
        lengths = np.array([0, *map(len, rows)], np.int64)
        terms = np.concatenate([np.empty(0, np.int32), *rows])
        return Csr(np.cumsum(lengths), terms, np.ones(len(terms), np.float32))

    def finish(self, vectors: Csr, kind: str) -> Csr:
        return vectors

    def encode(
        self,
        texts: Sequence[str],
        kind: str = "document",
        budget: int = 4096,
        progress: Callable[[int], None] | None = None,
    ) -> Csr:
        vectors = self.forward(self.tokenize(texts, kind))
        if progress is not None:
            progress(len(texts))
        return vectors

    def offsets(self, texts: Sequence[str]) -> list[NDArray[np.int64]]:
        return [
            np.array([match.span() for match in WORD.finditer(text)], dtype=np.int64).reshape(-1, 2)
            for text in texts
        ]

    def pieces(self, texts: Sequence[str]) -> list[NDArray[np.int32]]:
        return [terms for terms, _ in self.encode(texts)]

    def words(self, terms: Sequence[int] | NDArray[np.integer]) -> list[str]:
        return [self._seen[int(term)] for term in terms]

    def text(self, ids: Sequence[int]) -> str:
        """A word for each term: one that had it, if any was tokenised."""
        if strange := [each for each in ids if not 0 <= each < self.vocabulary]:
            raise ValueError(f"{strange[0]} is no token of {self.name}")
        return " ".join(self._seen.get(each, f"w{each}") for each in ids if each)

    def _term(self, word: str) -> int:
        term = 1 + crc32(word.encode("utf-8", "replace")) % (self.vocabulary - 1)
        self._seen[term] = word
        return term


class WordOverlapLateEncoder:
    """Words in, a direction for each of them out: float32 [words, 64], in the order of the text.

    A token is a lower-cased word. MaxSim of two texts is the share of the first one's words that the second
    has too. A text without words has one vector, which no word has. Two words share a direction with
    probability 1/63.
    """

    name = "word-overlap-late"
    fingerprint = "word-overlap-late-64"
    dim = 64
    dtype = "float32"

    _seen = {0: "[nothing]"}  # noqa: RUF012 - shared by all, as weights are

    def __init__(self, max_tokens: int = 256) -> None:
        self.max_tokens = max_tokens

    def tokenize(self, texts: Sequence[str], kind: str = "document") -> list[list[int]]:
        return [[self._direction(word) for word in self._words(text)] or [0] for text in texts]

    pooled: str | None = None

    def vectors(self, tokens: Sequence[Sequence[int]], sentences: bool = False) -> list[tuple[Any, None]]:
        return [(np.eye(self.dim, dtype=np.float32)[list(ids)], None) for ids in tokens]

    def encode(
        self,
        texts: Sequence[str],
        kind: str = "document",
        budget: int = 4096,
        progress: Callable[[int], None] | None = None,
    ) -> list[NDArray[np.float32]]:
        vectors = [tokens for tokens, _ in self.vectors(self.tokenize(texts, kind))]
        if progress is not None:
            progress(len(texts))
        return vectors

    def offsets(self, texts: Sequence[str]) -> list[NDArray[np.int64]]:
        return [
            np.array([match.span() for match in WORD.finditer(text)], dtype=np.int64).reshape(-1, 2)
            for text in texts
        ]

    def pieces(self, texts: Sequence[str], kind: str = "document") -> list[tuple[Any, Any]]:
        return [
            (np.array(ids, np.int32), spans[: len(ids)] if len(spans) else np.zeros((1, 2), np.int64))
            for ids, spans in zip(self.tokenize(texts, kind), self.offsets(texts), strict=True)
        ]

    def gates(self, vectors: NDArray[np.float32]) -> None:
        return None

    def words(self, ids: Sequence[int] | NDArray[np.integer]) -> list[str]:
        return [self._seen[int(each)] for each in ids]

    def sample_texts(self) -> list[str]:
        return ["tide moon sea water", "cat dog rain sun"]

    def _words(self, text: str) -> list[str]:
        return WORD.findall(text.lower())[: self.max_tokens]

    def _direction(self, word: str) -> int:
        direction = 1 + crc32(word.encode("utf-8", "replace")) % (self.dim - 1)
        self._seen[direction] = word
        return direction


class WordOverlapCrossNet:
    """What the service asks of `models.cross.CrossEncoder`: the logit of a pair is how many of the question's
    words the text has.

    A token is a word; a pair has no others, and is cut to 24. A text of more than `window` words is read in
    windows of so many, two at most: the better one counts whole and the other half. `forwards` has the items
    of every forward; it waits while the gate is shut, and takes `seconds` a token.
    """

    name = "word-overlap-cross"
    max_tokens, window = 24, 8
    dtype = "float32"

    def __init__(self, fingerprint: str = "word-overlap-cross", seconds: float = 0.0) -> None:
        self.fingerprint = fingerprint
        self.seconds = seconds
        self.forwards: list[list[list[int]]] = []
        self.entered = threading.Semaphore(0)
        self.gate = threading.Event()
        self.gate.set()

    def tokenize(self, pairs: Sequence[tuple[str, str]]) -> list[list[int]]:
        return [self._item(*pair)[: self.max_tokens] for pair in pairs]

    def forward(self, items: Sequence[Sequence[int]]) -> NDArray[np.float32]:
        self.forwards.append([list(item) for item in items])
        self.entered.release()
        assert self.gate.wait(10), "the test never opened the gate"
        time.sleep(self.seconds * sum(map(len, items)))
        first = [{word for word in item if word >= 0} for item in items]
        second = [{~word for word in item if word < 0} for item in items]
        return np.array([len(a & b) for a, b in zip(first, second, strict=True)], np.float32)

    def activate(self, logits: NDArray[np.float32]) -> NDArray[np.float32]:
        return logits / (1 + logits)

    def read(self, query: str, documents: Sequence[tuple[str, str]]) -> list[Any]:
        return [self._reading(query, title, text) for title, text in documents]

    def score(self, readings: Sequence[Any], logits: NDArray[np.float32]) -> NDArray[np.float32]:
        from models.cross_passages import add_up

        counts = [len(each.items) for each in readings]
        return add_up(logits, np.repeat(np.arange(len(counts)), counts), len(counts), (1.0, 0.5))

    def offsets(self, texts: Sequence[str]) -> list[NDArray[np.int64]]:
        return WordOverlapEncoder().offsets(texts)

    def _reading(self, query: str, title: str, text: str) -> Any:
        from models.cross_passages import Reading, choose, cut

        offsets = np.array([match.span() for match in WORD.finditer(text)], np.int64).reshape(-1, 2)
        windows = cut(text, offsets, self.window, 0)
        asked = set(self._ids(query))
        shared = [len(asked & set(self._ids(text[begin:end]))) for begin, end in windows.characters.tolist()]
        chosen = windows.characters[choose(np.array(shared, np.float32), 2)]
        items = [self._item(query, f"{title} {text[begin:end]}") for begin, end in chosen.tolist()]
        whole = len(chosen) == len(windows) and max(map(len, items)) <= self.max_tokens
        return Reading([item[: self.max_tokens] for item in items], chosen, whole)

    def _item(self, query: str, text: str) -> list[int]:
        return [*self._ids(query), *(~word for word in self._ids(text))] or [0]

    def _ids(self, text: str) -> list[int]:
        return [1 + crc32(word.encode("utf-8", "replace")) % 60_000 for word in WORD.findall(text.lower())]


def word_overlap(role: str, name: str) -> Any:
    """Load an encoder by word overlap, whatever its name, or a scorer."""
    if role == "quality":
        from models.quality import load_quality

        return load_quality(name)
    if role == "late":
        return WordOverlapLateEncoder()
    if role == "cross":
        return WordOverlapCrossNet()
    if role == "in_context":
        return WordOverlapKeysNet()
    return WordOverlapSparseEncoder() if role == "sparse" else WordOverlapEncoder()


def loading(**nets: Any) -> Callable[[str, str], Any]:
    """A loader that gives these by role (`dense=…`), and the others by word overlap."""
    return lambda role, name: nets.get(role) or word_overlap(role, name)


class CountingNet(WordOverlapEncoder):
    """A `WordOverlapEncoder` that records the texts of every forward, and waits in it while `held`."""

    def __init__(self, max_tokens: int = 256) -> None:
        super().__init__(max_tokens)
        self.batches: list[list[list[int]]] = []
        self.entered = threading.Semaphore(0)
        self.gate = threading.Event()
        self.gate.set()

    def forward(self, tokens: Sequence[Sequence[int]]) -> NDArray[np.float32]:
        self.batches.append([list(ids) for ids in tokens])
        self.entered.release()
        assert self.gate.wait(10), "the test never opened the gate"
        return super().forward(tokens)


class WordOverlapKeysNet:
    """What the indexer asks of `models.in_context.net.InContextNet`: a token a word, a direction a key.

    All three key-value heads have the same key, float32 [words, 3, 64]. A title is cut to 4 words, a text to
    16. `batches` remembers the documents of every call of `encode_keys`.
    """

    name = "word-overlap-keys"
    kv_heads = 3
    head_dim = 64
    title_words, text_words = 4, 16

    def __init__(self, fingerprint: str = "word-overlap-keys-64") -> None:
        self.fingerprint = fingerprint
        self.batches: list[list[tuple[str, str]]] = []

    def document_tokens(self, documents: Sequence[tuple[str, str]]) -> list[Any]:
        return [
            SimpleNamespace(
                ids=self.ids(title)[: self.title_words] + self.ids(text)[: self.text_words],
                lost=max(0, len(self.ids(title)) - self.title_words)
                + max(0, len(self.ids(text)) - self.text_words),
            )
            for title, text in documents
        ]

    def encode_keys(
        self, documents: Sequence[tuple[str, str]], *, progress: Callable[[int], None] | None = None
    ) -> list[NDArray[np.float32]]:
        self.batches.append(list(documents))
        if progress is not None:
            progress(len(documents))
        return [self.keys(cut.ids) for cut in self.document_tokens(documents)]

    def keys(self, ids: Sequence[int]) -> NDArray[np.float32]:
        return np.repeat(np.eye(self.head_dim, dtype=np.float32)[list(ids)][:, None], self.kv_heads, axis=1)

    def ids(self, text: str) -> list[int]:
        words = WORD.findall(text.lower())
        return [crc32(word.encode("utf-8", "replace")) % self.head_dim for word in words]
