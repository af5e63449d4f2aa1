"""What Ollama's clients ask beside inference: which models there are, and pulling, making, copying and removing them.

    doors.py      which path does what, who may, and in which form it is answered
    described.py  models in Ollama's words
    pulling.py    operations told as Ollama tells its progress
    making.py     models made of others: registrations under names of their own
    resting.py    requests without a prompt, which load a model or let it go

Each does what the management API does, by the same means.
"""
