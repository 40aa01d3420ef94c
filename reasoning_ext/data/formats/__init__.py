"""Dataset formats: one function a format, from one row of a public data set to TRL's prompt-completion columns.

A format returns `prompt`, `completion` (where the set has something to train on), `answer` (the gold; None where a
row has none) and other columns for rewards, as text or as messages; `data.format` makes messages of text. It returns
None for a row that is to be left out, and raises ValueError for one that does not have the set's shape. A trace is
kept to the character: as it is where the data has it in one text with the answer, else as
`<think>\\n...\\n</think>\\n\\n` before the answer.
"""
