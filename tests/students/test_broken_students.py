import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoTokenizer, BertConfig, BertForMaskedLM, GPT2Config, GPT2LMHeadModel

from kpod_lightning.store.errors import InputError
from kpod_lightning.store.files import ASSETS
from kpod_lightning.students.student import load_config, load_student


@pytest.fixture
def folder(tmp_path):
    copied = tmp_path / "student"
    shutil.copytree(ASSETS / "tiny-llama", copied)
    for path in copied.iterdir():
        path.chmod(0o644)
    return copied


def changed(path, **values):
    written = {name: value for name, value in (json.loads(path.read_text()) | values).items() if value is not None}
    path.write_text(json.dumps(written))


def tensors(folder, change):
    held = load_file(folder / "model.safetensors")
    change(held)
    save_file(held, folder / "model.safetensors", metadata={"format": "pt"})


def torn(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def emptied(folder):
    for path in folder.iterdir():
        path.unlink()


def adapter(folder):
    emptied(folder)
    (folder / "adapter_config.json").write_text('{"peft_type": "LORA"}')


def with_nan(value):
    def change(held):
        held["model.layers.1.mlp.up_proj.weight"][0, 0] = value

    return change


def pickled(folder):
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()


def pickled_code(folder):
    class Code:
        def __reduce__(self):
            return (open, (str(folder / "ran"), "w"))

    torch.save({"a": Code()}, folder / "pytorch_model.bin")


def encoder(folder):
    tokenizer = AutoTokenizer.from_pretrained(folder)
    emptied(folder)
    sizes = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    BertForMaskedLM(BertConfig(vocab_size=len(tokenizer), **sizes)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def base_without_head(folder):
    tokenizer = AutoTokenizer.from_pretrained(folder)
    emptied(folder)
    sizes = {"n_embd": 16, "n_layer": 1, "n_head": 2, "tie_word_embeddings": False}
    config = GPT2Config(vocab_size=len(tokenizer), **sizes)
    GPT2LMHeadModel(config).transformer.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def t5_without_start(folder):
    shutil.rmtree(folder)
    shutil.copytree(ASSETS / "tiny-t5", folder)
    (folder / "config.json").chmod(0o644)
    changed(folder / "config.json", decoder_start_token_id=None)


def without_eos(folder):
    changed(folder / "tokenizer_config.json", eos_token=None)


def index_of_missing_part(folder):
    (folder / "model.safetensors").rename(folder / "model-00001-of-00002.safetensors")
    held = load_file(folder / "model-00001-of-00002.safetensors")
    weight_map = {name: "model-00001-of-00002.safetensors" for name in held}
    weight_map["model.norm.weight"] = "model-00002-of-00002.safetensors"
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))


def own_code(folder):
    changed(folder / "config.json", model_type="mine", auto_map={"AutoConfig": "mine.Mine"})
    (folder / "mine.py").write_text(f"open({str(folder / 'ran')!r}, 'w')")


def lacks(*names):
    return lambda folder: tensors(folder, lambda held: [held.pop(name) for name in names])


def adds(name):
    return lambda folder: tensors(folder, lambda held: held.update({name: torch.zeros(2)}))


def config(**values):
    return lambda folder: changed(folder / "config.json", **values)


def written(name, text):
    return lambda folder: (folder / name).write_text(text)


NORM, UP = "model.norm.weight", "model.layers.1.mlp.up_proj.weight"
BROKEN = {
    "empty folder": (emptied, "an empty folder"),
    "adapter": (adapter, "an adapter without its model.*merge"),
    "no config": (lambda folder: (folder / "config.json").unlink(), "no config.json"),
    "config is no JSON": (written("config.json", "{oops"), "config.json.*broken JSON"),
    "config is a list": (written("config.json", "[]"), "config.json"),
    "config is empty": (written("config.json", ""), "config.json.*empty"),
    "config is latin": (lambda folder: (folder / "config.json").write_bytes(b'{"a": "\xe9"}'), "config.json.*UTF-8"),
    "config torn": (lambda folder: torn(folder / "config.json"), "config.json.*broken JSON"),
    "unknown kind": (config(model_type="lama"), "lama"),
    "no kind": (config(model_type=None), "cannot load"),
    "kind of another family": (config(model_type="gpt2"), "its files|cannot load|incomplete"),
    "no text model": (config(model_type="vit"), "student.name"),
    "width does not match": (config(hidden_size=64), "shape|incomplete"),
    "width is a word": (config(hidden_size="wide"), "cannot load|incomplete"),
    "heads do not divide": (config(num_attention_heads=7, num_key_value_heads=7), "student.name"),
    "fewer layers": (config(num_hidden_layers=3), "without a place for it, model.layers.3.* and 8 more"),
    "more layers": (config(num_hidden_layers=5), "lack model.layers.4"),
    "vocabulary does not match": (config(vocab_size=900), "shape|incomplete"),
    "no weights": (lambda folder: (folder / "model.safetensors").unlink(), "no parameters"),
    "torn weights": (lambda folder: torn(folder / "model.safetensors"), "incomplete or damaged"),
    "weights of zero bytes": (written("model.safetensors", ""), "incomplete or damaged"),
    "weights are a pointer": (written("model.safetensors", "version https://git-lfs"), "incomplete or damaged"),
    "a tensor is lacking": (lacks(NORM), f"lack {NORM}"),
    "two tensors are lacking": (lacks(NORM, UP), f"lack {UP} and 1 more"),
    "a strange tensor": (adds("v_head.weight"), "without a place for it, v_head.weight"),
    "NaN": (lambda folder: tensors(folder, with_nan(torch.nan)), f"{UP} holds NaN or infinity"),
    "infinity": (lambda folder: tensors(folder, with_nan(-torch.inf)), f"{UP} holds NaN or infinity"),
    "a part is lacking": (index_of_missing_part, "incomplete or damaged"),
    "pickled": (pickled, "pytorch_model.bin is a pickle.*student.allow_pickle=true"),
    "own code": (own_code, "student.trust_remote_code=true"),
    "no tokenizer": (lambda folder: [path.unlink() for path in folder.glob("tokenizer*")], "tokenizer"),
    "torn tokenizer": (lambda folder: torn(folder / "tokenizer.json"), "no tokenizer that can be read"),
    "tokenizer is a list": (written("tokenizer.json", "[]"), "no tokenizer that can be read"),
    "tokenizer settings torn": (lambda folder: torn(folder / "tokenizer_config.json"), "tokenizer"),
    "no end of sequence": (without_eos, "no end-of-sequence token"),
    "an encoder": (encoder, "a bert fills gaps and cannot write"),
    "no head": (base_without_head, "lack lm_head.weight"),
    "no start of the decoder": (t5_without_start, "no decoder_start_token_id"),
}


@pytest.mark.parametrize("fault", BROKEN)
def test_a_broken_student_is_refused_in_one_line_that_names_it(fault, folder):
    harm, said = BROKEN[fault]
    harm(folder)
    with pytest.raises(InputError, match=said) as refused:
        load_student(str(folder))
    assert str(folder) in str(refused.value) and "\n" not in str(refused.value)
    assert not (folder / "ran").exists()


def test_more_tokens_than_embeddings_are_refused(folder):
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.add_tokens(["<one>", "<two>"])
    tokenizer.save_pretrained(folder)
    with pytest.raises(InputError, match="ids up to 1025, and the model embeddings of 1024 tokens"):
        load_student(str(folder))


def test_pickled_weights_are_read_where_they_are_asked_for_and_run_nothing(folder):
    expected = load_student("tiny-llama").model.state_dict()
    pickled(folder)
    loaded = load_student(str(folder), allow_pickle=True).model.state_dict()
    assert all(torch.equal(loaded[name], tensor) for name, tensor in expected.items())
    pickled_code(folder)
    with pytest.raises(InputError, match="incomplete or damaged"):
        load_student(str(folder), allow_pickle=True)
    assert not (folder / "ran").exists()


def test_a_head_that_is_the_embedding_may_be_lacking_and_old_buffers_may_be_there(folder):
    tensors(folder, lambda held: held.update({"model.layers.0.self_attn.rotary_emb.inv_freq": torch.zeros(16)}))
    assert load_student(str(folder)).model.num_parameters() == load_student("tiny-llama").model.num_parameters()


def test_a_file_is_no_student(tmp_path):
    (tmp_path / "model.safetensors").write_bytes(b"")
    with pytest.raises(InputError, match=r"a file, where a model.s folder"):
        load_student(str(tmp_path / "model.safetensors"))


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("tiny-lama", "tiny-llama"),
        ("tinyllama", "tiny-llama"),
        ("Tiny-T5", "tiny-t5"),
        ("flan-t5-lage", "flan-t5-large"),
    ],
)
def test_a_mistyped_student_is_guessed_before_the_hub_is_asked(name, meant):
    with pytest.raises(InputError, match=f"did you mean {meant}"):
        load_config(name)


@pytest.mark.parametrize("name", ["", " ", "/no/such/student", "./student", "a/b/c"])
def test_a_name_that_can_be_none_of_the_hub_is_refused_at_once(name):
    with pytest.raises(InputError, match=r"no such folder|is empty"):
        load_config(name)


def test_a_model_that_the_hub_cannot_give_is_one_line(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(InputError, match=r"student.name=nobody/nothing: cannot load nobody/nothing") as refused:
        load_config("nobody/nothing")
    assert "\n" not in str(refused.value)
