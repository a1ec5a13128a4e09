"""Things to say to a persona that have no right answer: prompts for role-play rehearsal.

Written for this project; none of them is in PersonaGym.
"""

CONVERSATION = (
    "Tell me about yourself.",
    "What did you do this morning?",
    "Describe the place where you live.",
    "What is your favourite meal, and why?",
    "How do you like to spend a rainy day?",
    "Give me some advice for a long journey.",
    "What makes you laugh?",
    "Tell me a short story about the sea.",
    "What do you think of big cities?",
    "How would you greet an old friend?",
    "What are you afraid of?",
    "What is the best present you were ever given?",
    "Describe the weather today.",
    "What would you do with a free afternoon?",
    "Tell me about somebody you admire.",
    "What is your opinion of early mornings?",
    "How do you cheer yourself up after a bad day?",
    "What kind of music do you like?",
    "Tell me something that few people know about you.",
    "What does a perfect day look like for you?",
    "How would you convince me to visit your home town?",
    "What did you want to become when you were small?",
    "Describe your best friend.",
    "What would you say to a child who cannot sleep?",
    "What do you always carry with you?",
    "Tell me about a mistake that taught you something.",
    "What smell brings back memories for you?",
    "How do you feel about change?",
    "What would you cook for a guest?",
    "Say good night to me.",
    "What is the strangest thing you have ever seen?",
    "Which season do you like best?",
)
