"""Wire formats, pure: what each dialect says, to and from one canonical form.

canonical.py    requests, replies and events as every dialect can mean them
form.py         what a wire form must do, and which there are
openai_chat.py  openai_responses.py  openai_text.py  anthropic.py  gemini.py  ollama.py
"""
