"""The parts of `large_file_processing`.

`models` is what clients see. `sources` opens what is to be read, `generator` makes it. `blocks` cuts it into whole
lines; `csv_rows` and `json_rows` find the values in them, which `cells` holds packed together; `kinds` and `numbers`
tell what they are, `distinct` counts the different ones, `columns` sums up; `reading` puts all this together.
"""
