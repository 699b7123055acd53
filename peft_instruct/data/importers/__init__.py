"""Exports of chats, help desks, mail boxes and FAQ pages -> rows to learn from; one module per kind of export.

    export file -> conversations (a kind's `read`) -> turns -> cleaned and masked -> rows

Every message ends in a row or among the dropped with its reason. Nothing is sent anywhere.
"""
