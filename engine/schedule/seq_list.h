/* Doubly linked lists of sequences; a sequence is in one list at a time. */
#pragma once
#include "engine/schedule/sequence.h"

struct seq_list {
    struct sequence *head, *tail;
    int n;
};

static inline void seq_list_push(struct seq_list *l, struct sequence *s)
{
    s->next = NULL;
    s->prev = l->tail;
    *(l->tail ? &l->tail->next : &l->head) = s;
    l->tail = s;
    l->n++;
}

static inline void seq_list_push_front(struct seq_list *l, struct sequence *s)
{
    s->prev = NULL;
    s->next = l->head;
    *(l->head ? &l->head->prev : &l->tail) = s;
    l->head = s;
    l->n++;
}

static inline void seq_list_remove(struct seq_list *l, struct sequence *s)
{
    *(s->prev ? &s->prev->next : &l->head) = s->next;
    *(s->next ? &s->next->prev : &l->tail) = s->prev;
    l->n--;
}

static inline void seq_list_move_all(struct seq_list *to, struct seq_list *from)
{
    if (!from->n)
        return;
    from->head->prev = to->tail;
    *(to->tail ? &to->tail->next : &to->head) = from->head;
    to->tail = from->tail;
    to->n += from->n;
    *from = (struct seq_list){0};
}
