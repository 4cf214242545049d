"""What stands on signs, jars, receipts and notices."""

import random


class NoRoom(Exception):
    """The texts do not fit: draw a larger picture, or others."""


TOWNS = (
    *("Ashford", "Brookfield", "Castle Hill", "Dunmore", "Eastport", "Fairview", "Glenwood", "Harbour", "Kingsley"),
    *("Lakeside", "Millbrook", "Newton", "Oakdale", "Port Royal", "Riverton", "Stonebridge", "Westgate", "Airport"),
)
JARS = (
    *("Plum", "Cherry", "Honey", "Apricot", "Fig", "Quince", "Peach", "Mint", "Lemon", "Ginger", "Mango", "Olives"),
    *("Pepper", "Tomato", "Basil", "Cocoa"),
)
GOODS = (
    *("Apples", "Bananas", "Bread", "Butter", "Carrots", "Cheese", "Coffee", "Eggs", "Flour", "Grapes", "Juice"),
    *("Milk", "Noodles", "Onions", "Pasta", "Rice", "Salt", "Soap", "Sugar", "Tea", "Tomatoes", "Yoghurt"),
)
SHOPS = ("Corner Market", "Green Grocer", "City Foods", "Farm Shop", "Daily Mart", "Harbour Store")
HOUSES = ("Library", "Museum", "Swimming pool", "Post office", "Town hall", "Gallery", "Pharmacy", "Gym")
ROOMS = ("Café", "Shop", "Office", "Archive", "Studio", "Terrace")
DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")


def prices(count: int, rng: random.Random) -> list[int]:
    """Different prices, in cents."""
    return rng.sample(range(45, 1995, 5), count)


def money(cents: int) -> str:
    """As it is printed: 12.50."""
    return f"{cents // 100}.{cents % 100:02d}"
