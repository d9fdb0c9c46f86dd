from pydicom.datadict import keyword_for_tag

from thinfilm_gateway.dicom import tags

TAGS = {name: value for name, value in vars(tags).items() if isinstance(value, int) and value > 0xFFFF}


def test_every_tag_has_the_name_that_the_standard_gives_it() -> None:
    for name, tag in TAGS.items():
        assert keyword_for_tag(tag).upper().removesuffix("ITEM") == name.replace("_", "").removesuffix("ITEM")


def test_no_tag_is_there_twice() -> None:
    assert len(set(TAGS.values())) == len(TAGS)


def test_a_tag_is_written_as_the_standard_does() -> None:
    assert tags.tag_name(tags.PIXEL_DATA) == "(7FE0,0010)"
