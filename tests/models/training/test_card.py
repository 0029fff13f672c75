import subprocess

from models.training.card import Source, write_card
from models.training.fit import Options, Run

RUN = Run(
    Options(steps=20, seed=4),
    "ndcg@10",
    0.75,
    10,
    20,
    120.0,
    ({"step": 0, "ndcg@10": 0.5}, {"step": 5, "loss": 1.0}, {"step": 10, "ndcg@10": 0.75, "entries": 90.0}),
)


def test_a_card_says_what_went_in_and_what_came_out(tmp_path):
    (tmp_path / "model.safetensors").write_bytes(b"weights")
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "old.safetensors").write_bytes(b"old")
    sources = [Source("pubmedqa", "pubmedqa/pubmedqa", "MIT", 1000)]
    write_card(tmp_path, "Tiny", "It finds.", "pypi:package/net", sources, RUN, "Apache-2.0")
    card = (tmp_path / "README.md").read_text()
    assert card.startswith("# Tiny\n\nIt finds.\n\nLicence: Apache-2.0. Begun with `pypi:package/net`.\n")
    assert "| pubmedqa | pubmedqa/pubmedqa | MIT | 1000 |" in card
    assert "20 steps, 2 min; the weights are those of step 10" in card
    assert "best by ndcg@10 on held-out questions (0.7500)" in card
    assert "| 0 | 0.5000 |  |\n| 10 | 0.7500 | 90.0000 |" in card
    assert '"seed": 4' in card
    check = subprocess.run(
        ["sha256sum", "--check", "SHA256SUMS"], cwd=tmp_path, capture_output=True, text=True
    )
    assert check.returncode == 0
    assert check.stdout == "model.safetensors: OK\n"
