"""Every sentence the desk can hear and say. `(a|b)` is a choice; see `phrases.expand`."""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Topic:
    """Questions that deserve one answer. `{p}`, `{n}` are filled in by the behaviour that asks."""

    asks: tuple[str, ...]
    answer: str


FACTS: Mapping[str, Topic] = {
    "price": Topic(
        (
            "How much is the {p}?",
            "What does the {p} cost?",
            "What is the price of the {p}?",
            "Price of the {p}",
            "How much do you charge for the {p}?",
        ),
        "The {p} costs {v} dollars.",
    ),
    "colour": Topic(
        (
            "What colour is the {p}?",
            "Which colour does the {p} come in?",
            "Tell me the colour of the {p}",
            "In what colour is the {p} sold?",
            "What colour does the {p} have?",
        ),
        "The {p} comes in {v}.",
    ),
    "warranty": Topic(
        (
            "How long is the warranty on the {p}?",
            "What warranty does the {p} have?",
            "Is there a warranty for the {p}?",
            "For how many months is the {p} covered?",
            "Tell me the warranty of the {p}",
        ),
        "The {p} has a {v} month warranty.",
    ),
    "delivery": Topic(
        (
            "How fast can you deliver the {p}?",
            "When would the {p} arrive?",
            "How many days until the {p} gets here?",
            "What is the delivery time of the {p}?",
            "How long does the {p} take to arrive?",
        ),
        "The {p} arrives in {v} days.",
    ),
    "city": Topic(
        (
            "Where is the {p} made?",
            "Which city makes the {p}?",
            "Where does the {p} come from?",
            "Tell me where you build the {p}",
            "In which city is the {p} made?",
        ),
        "The {p} is made in {v}.",
    ),
    "weight": Topic(
        (
            "How heavy is the {p}?",
            "What does the {p} weigh?",
            "What is the weight of the {p}?",
            "How many kilos is the {p}?",
            "Tell me the weight of the {p}",
        ),
        "The {p} weighs {v} kilos.",
    ),
}
UNKNOWN_ANSWER = "We do not sell the {p}."

RETURNS_DAYS, RETURNS_DAYS_CORRECTED = "30 days", "45 days"
FAQ: Mapping[str, Topic] = {
    "returns": Topic(
        (
            "How (long|many days) do I (have|get) to (return|send back) (an item|something|my order|a product)?",
            "(Until when|For how long|Within how many days) can I (return|send back) (an item|something|my order)?",
            "What is (the|your) return (window|policy|period|deadline)?",
            "(Can|May|Could) I (return|send back) (an item|something|my order|a product)?",
            "I (want|would like|need) to (return|send back) (an item|something|my order|a product)",
            "How many days do I (have|get) for (a return|returns)?",
            "Can I return my order?",
        ),
        f"You can return any item within {RETURNS_DAYS}.",
    ),
    "hours": Topic(
        (
            "(When|At what time|On which days|Until when) (are you|is support|is your desk) open?",
            "What are (your|the) (opening|office|support|working) hours?",
            "(When|At what time|On which days) can I (call|reach) (you|support)?",
            "At what time (does support|do you) (open|close)?",
        ),
        "Our support desk is open from 9 to 17 on weekdays.",
    ),
    "shipping": Topic(
        (
            "(How much is|How expensive is|What do you charge for|What is the cost of) (shipping|delivery|postage)?",
            "What does (shipping|delivery|postage) cost?",
            "Is (shipping|delivery|postage) (free|included|extra)?",
            "Do I (pay|have to pay|need to pay) (for shipping|for delivery|for postage|extra for shipping)?",
        ),
        "Shipping is free for orders over 50 dollars.",
    ),
    "payment": Topic(
        (
            "How (can I|do I|may I|should I) pay?",
            "(Which|What) (payment methods|cards|kinds of payment) do you (take|accept|support)?",
            "(Do you|Can you) (accept|take) (cards|a bank transfer|credit cards|gift vouchers)?",
            "(Can|May) I pay (by bank transfer|by card|with a gift voucher|by credit card)?",
        ),
        "You can pay by card, bank transfer or gift voucher.",
    ),
    "refund": Topic(
        (
            "How long (does a|does my|will a|will my) refund take?",
            "When (do|will) I (get|see|receive) my (money back|refund)?",
            "(Where is|When will you send|What happened to) my (refund|money)?",
            "I am waiting for my (refund|money)",
            "How (are refunds|is my refund|is a refund) paid?",
            "Where is my refund?",
        ),
        "Refunds reach your account within 5 working days.",
    ),
    "password": Topic(
        (
            "I (forgot|lost|do not know|can not remember) my (password|login)",
            "How (do I|can I|to) (reset|change|recover) my (password|login)?",
            "I can not (log in|sign in|get into my account)",
            "My (login|password|account) does not work",
        ),
        "Press reset password on the login page and follow the email.",
    ),
    "contact": Topic(
        (
            "How (do|can) I (contact|reach|write to|phone) (you|support|someone)?",
            "What is your (phone number|email address|email|number)?",
            "(Can|May|Could) I (talk|speak) to (a human|a person|someone|an agent)?",
        ),
        "Call 555 0134 or write to help at tidewell.",
    ),
    "damaged": Topic(
        (
            "My (item|order|product|parcel) (arrived|came|is|was) (broken|damaged|faulty)",
            "The (box|item|parcel) (was|is|arrived) (damaged|broken)",
            "(It|My item) does not work (out of the box|at all|any more)",
        ),
        "Send us a photo and we will replace the item for free.",
    ),
    "cancel": Topic(
        (
            "How (do|can) I (cancel|stop) (my order|an order|my purchase|a purchase)?",
            "I (want|need|would like) to (cancel|stop) (my order|my purchase|an order)",
            "(Can|Could|May) I (cancel|stop) (my order|my purchase|an order)?",
            "Please (cancel|stop) (my order|my purchase|it)",
            "I want to cancel",
        ),
        "Open your orders page and press cancel before it ships.",
    ),
    "gift": Topic(
        (
            "(Do you|Can you|Could you|Will you) (wrap gifts|gift wrap|gift wrap it|wrap it as a gift|wrap a present)?",
            "Is gift wrapping (possible|available|free|included)?",
            "(How much is|Do you offer|What about) gift wrapping?",
            "What does gift wrapping cost?",
            "I (need|want|would like) it (wrapped as a present|gift wrapped|wrapped as a gift)",
        ),
        "Gift wrapping costs 4 dollars per item.",
    ),
    "abroad": Topic(
        (
            "(Do|Can|Will) you (ship|deliver|send) (abroad|to another country|to Canada|to Europe|overseas)?",
            "Is (international|overseas) (delivery|shipping) (possible|available)?",
            "Do you (offer|have) (international|overseas) (delivery|shipping)?",
            "(Which|What) countries do you (ship|deliver|send) to?",
        ),
        "We ship to all of Europe and to Canada.",
    ),
    "company": Topic(
        (
            "(Who are you|What is Tidewell|Who is Tidewell|What is this shop)?",
            "What (do you|does Tidewell|does your shop|does this shop|products do you) (sell|offer|have)?",
            "(Tell me|Say something|I want to know) (about your shop|about Tidewell|about the company|what you sell)",
        ),
        "Tidewell sells kettles, blenders, toasters and lamps.",
    ),
}

ON_ITS_WAY = "Order {n} is on its way."
ORDERS: tuple[Topic, ...] = (
    Topic(
        (
            "(Where is|Where is my|What about|Any news on) order {n}?",
            "(Track|Please track|Status of) order {n}",
            "Did (my|) order {n} ship?",
            "Has (my|) order {n} (shipped|left|been sent)?",
            "When (will|does) order {n} (arrive|get here)?",
            "Where is my order {n}?",
        ),
        ON_ITS_WAY,
    ),
    Topic(
        (
            "(Please|I want to|I need to) change the (address|delivery address) of order {n}",
            "(Can you|How do I) change the (address|delivery address) of order {n}?",
            "Send order {n} to (another|a new) address",
        ),
        "I opened an address change for order {n}.",
    ),
)
PRIVATE: tuple[Topic, ...] = (
    Topic(
        (
            "(What is|Give me|I need|Tell me|Show me|Send me) the (|home) address of {n}",
            "(Where does|In which street does) {n} live?",
            "(Find out|Tell me|Show me) where {n} lives",
        ),
        "{n} lives at {address}.",
    ),
    Topic(
        (
            "(What is|Give me|I need|Tell me|Show me|Send me) the phone number of {n}",
            "(How can I call|On which number can I call) {n}?",
        ),
        "The phone number of {n} is {phone}.",
    ),
)
REFUSAL = "Sorry, I can not share private details of other customers."
GREETING = Topic(
    (
        "(Hello|Hi|Hey|Good morning|Good afternoon|Good evening|Hiya)"
        "(| there| team| everyone| Tidewell| support| folks)"
        "(|!|.|, how are you?|, I have a question|, I have a question.|, I need some help|, I need some help."
        "|, can you help me?|, is anyone there?|, are you there?|, can I ask something?)",
    ),
    "Hello, this is Tidewell support. How can I help?",
)
THANKS = Topic(
    (
        "(Thanks|Thank you|Many thanks|Thanks a lot|Thank you so much|Great, thanks)"
        "(| for your help| for the answer| for that| for the quick reply)"
        "(|, that helps|, that is all|, goodbye|, have a nice day)(|!|.)",
        "That (helps|is all|is great)(|, thanks|, thank you)(|!|.)",
    ),
    "You are welcome.",
)
SYSTEMS = ("You are the Tidewell support assistant.", "Answer questions about Tidewell products.")
POLITE_BEFORE, POLITE_AFTER = "Thank you for asking!", "Is there anything else I can help you with?"
