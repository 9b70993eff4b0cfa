# ruff: noqa: E501 - a template stays on one line
"""Spoken commands to an assistant, one a row."""

from random import Random

from make_bundled.corpora.grammar import Grammar, Rule, lines, number, words
from make_bundled.corpora.words import ENGLISH

RULES: dict[str, Rule] = {
    "genre": words("""
        ambient ballad bluegrass blues classical country dance disco electro folk funk gospel grunge
        indie jazz latin metal opera pop punk rap reggae rock salsa soul swing techno trance
    """),
    "mood": words("""
        morning evening workout dinner party road_trip study sleepy rainy_day summer winter romantic
        gym breakfast focus garden travel sunday acoustic throwback holiday cleaning yoga birthday
    """),
    "title": lines("""
        {quality} {thing:pl}
        the {quality} {animal}
        {nature} of {material}
        {colour} {nature}
        my {quality} {job}
        {idea} and {idea}
        the {job} of {place}
        {thing:a} for {first}
    """),
    "artist": ["{name}", "{first}", "the {quality} {animal:pl}", "{place} {thing:pl}", "{surname}"],
    "polite": ["please ", "can you ", "could you ", "i want you to ", "hey, ", "", "", "", "", ""],
    "time": ["{hour} am", "{hour} pm", "{hour} o'clock", "noon", "midnight", "half past {hour}",
             "{hour}:{minute} am", "{hour}:{minute} pm"],
    "hour": number(1, 12), "minute": number(10, 55, 5),
    "day": ["today", "tomorrow", "tonight", "on {weekday}", "next {weekday}", "this weekend",
            "on {month} {dayofmonth}", "in {count} days", "next week", "this {weekday} evening"],
    "weather": words("rain snow fog hail wind sunshine sleet clouds thunder frost ice heat drizzle"),
    "sky": words("""
        rainy snowy foggy windy sunny icy cloudy stormy humid freezing warm chilly hot cold dry wet mild
    """),
    "spot": ["{place}", "{place}", "{place}, {country}", "{country}", "the {nature} near {place}",
             "{place} {building}"],
    "cuisine": ["{national}", "{national}", "vegan", "seafood", "vegetarian", "barbecue"],
    "eatery": words("restaurant cafe bistro diner brasserie pub steakhouse tavern bakery pizzeria"),
    "party": ["{count}", "{small} people", "{count} people", "me and my {kin}", "my {kin} and {first}",
              "{first}, {first} and me"],
    "kin": words("""
        mother father sister brother aunt uncle cousin grandmother grandfather daughter son niece
        nephew wife husband neighbour boss roommate
    """),
    "room": words("""
        kitchen bedroom bathroom hallway garage attic cellar lounge nursery office garden porch
        pantry studio library
    """),
    "device": words("lamp heater fan radio oven kettle heating television blind alarm sprinkler"),
    "work": words("book novel essay saga series textbook chronicle album"),
    "show": words("movie film game song painting picture show soundtrack trailer series poem"),
    "theatre": ["the {place} cinema", "{surname} theatres", "the {quality} {animal} picture house",
                "the nearest cinema", "the cinema in {place}"],
    "command": lines("""
        {polite}play [some|the latest|a bit of] {genre} [music|songs|tunes]
        {polite}play {title} by {artist}
        {polite}play the [first|second|third|last] [song|track|album] by {artist} from {year}
        {polite}[start|put on] my {mood} playlist [on shuffle|in the {room}|at {time}|]
        {polite}play [something|a tune] [from|off] the {year} album {title}
        {polite}add {title} to my {mood} [playlist|list|mix]
        {polite}[add|put] [this|another|the current] {genre} [song|tune|track] [by {artist}|] [to|on|in] the {mood} playlist
        {polite}add {artist} to [my|{first}'s] {mood} {genre} [playlist|collection]
        {polite}book a table for {party} at {cuisine:a} {eatery} in {spot} {day}
        {polite}[reserve|find me] a [table|spot|seat] at {first}'s {eatery} for {count} at {time} {day}
        i [need|want|would like] {eatery:a} [that serves|with] {food} {dish:pl} for {party} {day}
        book {quality:a} {eatery} [close to|near|not far from] the {building} in {place} for {party}
        what will the weather be [like|] in {spot} {day}
        [will it|is it going to|is it likely to] {weatherverb} in {spot} {day}
        how {sky} [is it|will it be] in {spot} at {time} {day}
        [is there|will there be] [any|a chance of|much] {weather} in {spot} {day}
        [tell me|give me|show me] the forecast for {spot} {day}
        {polite}rate the {work} {title} {stars} [stars|points|out of 6]
        [give|award] [this|the current|the last|my] {work} {stars} [stars|points|out of 6]
        i [would|want to] give {title} a rating of {stars} [stars|points|]
        {polite}find [the|a] {show} [called|named] {title}
        {polite}[look for|search for|show me] the {show} {title} [by {artist}|]
        [where|how] can i [watch|buy|see|download] the {show} {title}
        [what|which] [films|movies] are [on|playing|showing] at {theatre} [{day}|at {time}|]
        [when|what time] is {title} [showing|playing] at {theatre} [{day}|]
        is {title} [on|showing] at {theatre} {day}
        {polite}set [an alarm|a reminder] for {time} {day}
        wake me [up|] at {time} {day} with {genre} music
        {polite}set a timer for {tens} [minutes|seconds] for the {food} {dish}
        remind me to [call|visit|text|email] my {kin} [about the {thing}|] {day} at {time}
        remind me to {deed} the {colour} {thing} [before|after] {time}
        {polite}turn [on|off|up|down] the {device} in the {room}
        {polite}[dim|switch on|switch off] the {room} lights [at {time}|]
        make the {room} lights [more|less] {colour}
        set the {room} [heating|temperature] to {small} degrees [at {time}|]
        add {food:pl} [and {staple}|] to [my|the] shopping list
        put {tens} grams of {staple} and {count} {food:pl} on the list
        [how long|how far] is the [drive|walk|ride] [to|from] the {building} in {place}
        [take me|navigate|get directions] to the {building} on {surname} [street|road|avenue|lane]
        call my {kin} [{first}|] on [the mobile|speaker|the {room} phone]
        send a message to {name} saying {message}
        text {first} that {message}
        read [me|] [my|the] [messages|emails|news] from {name}
        schedule {topic:a} meeting with {name} {day} at {time}
        cancel my {time} [appointment|meeting] with the {job} {day}
        what is the {national} word for {thing}
        how do you spell {idea}
        order {count} {food} {dish:pl} from {first}'s {eatery}
        [find|get] me a [train|bus|flight] from {place} to {place} {day} [at {time}|]
        what is the price of {material:a} {thing}
        [start|stop] [vacuuming|mopping|heating] the {room} [at {time}|now|{day}]
    """),
    "weatherverb": words("rain snow freeze hail drizzle thunder be_sunny be_windy be_foggy get_warmer"),
    "message": lines("""
        i will be {tens} minutes late
        the {food} {dish} is in the oven
        i left the {thing} in the {room}
        the {job} is coming {day}
        dinner is at {time}
        my {vehicle} is at the {building}
        we need more {staple}
        the {animal} is {quality} again
    """),
    "stars": ["1", "2", "3", "4", "5", "6", "zero", "one", "two", "three", "four", "five"],
}  # fmt: skip

GRAMMAR = Grammar(ENGLISH, RULES)


def document(rng: Random) -> list[str]:
    """One command, in one row; about half of them are spoken without capitals."""
    text = " ".join(GRAMMAR.draw("command", rng).split())
    return [text.lower() if rng.random() < 0.6 else text]
