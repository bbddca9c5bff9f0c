"""Trees as in RFC 9162: each member is proved, and nothing else is."""

import hashlib

import pytest

from ota.trees import Tree, leaf_hash, leaf_list, list_tree, name_leaf, name_tree, root_from_proof


def plain_root(leaves):
    """Return the root as RFC 9162, 2.1.1, defines it, word by word."""
    if len(leaves) == 1:
        return leaves[0]
    half = 1
    while half * 2 < len(leaves):
        half *= 2
    return hashlib.sha256(b"\x01" + plain_root(leaves[:half]) + plain_root(leaves[half:])).digest()


def test_the_root_is_that_of_the_definition_for_all_small_sizes():
    leaves = [leaf_hash(bytes([number])) for number in range(70)]
    for count in range(1, 71):
        assert Tree(leaves[:count]).root == plain_root(leaves[:count])


def test_every_member_is_proved_and_at_its_own_place_only():
    leaves = [leaf_hash(bytes([number])) for number in range(33)]
    for count in range(1, 34):
        tree = Tree(leaves[:count])
        for index in range(count):
            path = tree.proof(index)
            proved = [
                place
                for place in range(-1, count + 1)
                if root_from_proof(leaves[index], place, count, path) == tree.root
            ]
            assert proved == [index]
            assert root_from_proof(leaves[index], index, count, (*path, bytes(32))) is None
            assert not path or root_from_proof(leaves[index], index, count, path[:-1]) is None


def test_a_node_is_not_taken_for_a_leaf():
    tree = Tree([leaf_hash(bytes([number])) for number in range(4)])
    node = tree.proof(0)[1]
    assert root_from_proof(node, 1, 2, ()) is None
    assert Tree([leaf_hash(b"a"), node]).root != tree.root


def test_ten_thousand_targets_need_fourteen_hashes():
    tree = name_tree([f"han-{number:05}" for number in range(10_000)])
    assert len(tree.proof(0)) == 14
    assert root_from_proof(name_leaf("han-00777"), 777, 10_000, tree.proof(777)) == tree.root


def test_names_come_sorted_and_once():
    for names in (["b", "a"], ["a", "a"], []):
        with pytest.raises(ValueError, match=r"names|leaf"):
            name_tree(names)


def test_a_file_of_no_blocks_and_half_a_leaf_make_no_tree():
    for leaves in (leaf_list(b"", 1_024), bytes(33)):
        with pytest.raises(ValueError, match="leaf"):
            list_tree(leaves)


def test_there_is_no_proof_of_what_is_not_in_the_tree():
    tree = Tree([bytes(32)])
    for index in (-1, 1):
        with pytest.raises(IndexError):
            tree.proof(index)
