"""Requests are gathered without loss, within bounds, contexts that are equal together."""

import random
import unittest

from dtrnet_eval import batches, prefixes


class ByContext(unittest.TestCase):
    def check(self, pairs: list[tuple[str, str]]) -> list[list[list[int]]]:
        made = list(batches.by_context(pairs))
        places = [place for batch in made for group in batch for place in group]
        self.assertEqual(sorted(places), list(range(len(pairs))))
        for batch in made:
            self.assertTrue(batch and all(batch))
            for group in batch:
                self.assertEqual(len({pairs[place][0] for place in group}), 1)
        return made

    def test_sizes(self) -> None:
        for contexts, each in [(0, 0), (1, 1), (1, 255), (1, 256), (1, 257), (1, 1000), (256, 1), (257, 1), (64, 4), (65, 4), (100, 3)]:
            pairs = [(f"c{i}", f"e{j}") for i in range(contexts) for j in range(each)]
            random.Random(contexts).shuffle(pairs)
            made = self.check(pairs)
            self.assertTrue(all(sum(map(len, batch)) <= batches.PAIRS_A_REQUEST for batch in made))

    def test_bytes(self) -> None:
        large = "x" * (batches.BYTES_A_REQUEST // 2)
        made = self.check([(f"{large}{i}", "e") for i in range(5)])
        self.assertEqual([len(batch) for batch in made], [1] * 5)
        made = self.check([("c", large + large + large), ("d", "e")])  # one pair may be larger than the bound
        self.assertEqual(len(made), 2)

    def test_neighbours(self) -> None:
        made = self.check([("b", "1"), ("a", "1"), ("b", "2"), ("a", "2")])
        self.assertEqual(made, [[[1, 3], [0, 2]]])


class BySettings(unittest.TestCase):
    def test_groups(self) -> None:
        settings = [{"until": ["\n"], "max_gen_toks": 8}, {"max_gen_toks": 8, "until": ["\n"]}, {"until": ["."]}] * 40
        made = batches.by_settings([(f"c{n}", one) for n, one in enumerate(settings)])
        self.assertEqual(sorted(place for batch in made for place in batch), list(range(len(settings))))
        for batch in made:
            self.assertLessEqual(len(batch), batches.PROMPTS_A_REQUEST)
            self.assertTrue(all(settings[place] == settings[batch[0]] for place in batch))
        self.assertEqual(len(made), 3 + 2)


class Servers(unittest.TestCase):
    def test_each_gets_some(self) -> None:
        for pairs, servers, most in ((10, 1, 256), (10000, 1, 256), (10, 2, 8), (100, 2, 25), (101, 2, 26), (10000, 4, 256), (0, 3, 8)):
            self.assertEqual(batches.pairs_a_request(pairs, servers), most)
        asked = [(f"context {i}", " a") for i in range(100)]
        found = list(batches.by_context(asked, 2))
        self.assertEqual(len(found), 4)
        self.assertEqual(sorted(place for batch in found for places in batch for place in places), list(range(100)))
        prompts = [(f"alone {n}", {"max_gen_toks": 8}) for n in range(20)]
        self.assertEqual([len(batches.by_settings(prompts, servers)) for servers in (1, 2, 4, 100)], [1, 4, 7, 10])
        prompts = [(letter * prefixes.CHARACTERS + str(n), {"max_gen_toks": 8}) for n in range(4) for letter in "abc"] + prompts[:2]
        self.assertEqual(batches.by_settings(prompts, 2), [[0, 3, 6, 9], [1, 4, 7, 10], [2, 5, 8, 11], [12, 13]])

    def test_a_request_has_one_beginning(self) -> None:
        """Of those that many pairs share; what stands alone is gathered as before, and one server gets as few requests as before."""
        shots = [letter * prefixes.CHARACTERS for letter in "ab"]
        asked = [(f"{shot} {i}", " x") for shot in shots for i in range(20)] + [(f"{i} alone", " x") for i in range(40)]
        begins = []
        for batch in batches.by_context(asked, 4):
            found = {prefixes.start_of(asked[places[0]][0]) for places in batch}
            self.assertTrue(len(found) == 1 or not found & set(shots), found)
            begins += [shot for shot in shots if shot in found]
        self.assertEqual(begins, [shots[0]] * 2 + [shots[1]] * 2)
        self.assertEqual(len(list(batches.by_context(asked, 1))), 1)


class Headers(unittest.TestCase):
    def test_equal_where_requests_begin_alike(self) -> None:
        shot = "q" * prefixes.CHARACTERS
        score = [{"requests": [{"context": shot + end, "continuations": [" a"]}]} for end in ("1", "2")]
        others = [{"texts": [shot + "3"]}, {"prompt": [shot + "4", "z"]}, {"prompt": shot}]
        self.assertEqual(len({tuple(prefixes.header(body).items()) for body in [*score, *others]}), 1)
        different = [{"requests": [{"context": "a"}]}, {"requests": [{"context": "b"}]}, {"prompt": [1, 2]}, {"prompt": [[1, 3]]}]
        made = [prefixes.header(body) for body in different]
        self.assertEqual(len({one[prefixes.HEADER] for one in made}), 4)
        for body in (None, {}, {"requests": []}, {"requests": [{"context": ""}]}, {"prompt": []}, {"texts": []}):
            self.assertEqual(prefixes.header(body), {}, body)
        for one in made:
            self.assertRegex(one[prefixes.HEADER], "^[0-9a-f]{16}$")

    def test_servers_behind(self) -> None:
        cases = {"4": 4, "1": 1, "": 1, "0": 1, "-3": 1, "many": 1, "99999": prefixes.MOST_SERVERS, "1234567": 1, "²": 1}
        for said, servers in cases.items():
            self.assertEqual(prefixes.servers_behind({prefixes.SERVERS_HEADER: said}), servers, said)
        self.assertEqual(prefixes.servers_behind({}), 1)


if __name__ == "__main__":
    unittest.main()
