"""Serves one labelling folder: the page, the clips and the answers. The contract of the page with the server is here.

A labelling folder holds ``labels.sqlite`` (``store``), ``token`` (kept, so that open pages survive a restart) and
``clips/`` (a cache that may be deleted). Every request needs the token: in the printed address (``/?token=...``), which
answers with the page and sets a cookie (SameSite=Strict, HttpOnly), and from then on in the cookie. The page should take
the token out of the address bar (``history.replaceState``). The host must be one that this server is known by; what
changes anything must come from its own origin (``Origin``) as ``application/json`` of at most 4096 bytes.

    GET  /                          the page: page/index.html
    GET  /page/NAME                 its other files (css, js, svg), one flat folder
    GET  /api/next?annotator=NAME   NEXT
    POST /api/answer                {pair, annotator, answer: "first"|"second"|"equal"|"skip", seconds, nonce}
                                    -> {ok: true, replayed: bool, progress, next: NEXT}
    POST /api/undo                  {annotator, pair, nonce}: those of ``undo`` in NEXT -> the same as an answer
    GET  /clips/NAME                a clip, from the cache folder alone; 503 with Retry-After while it is not ready
    GET  /results, /results/NAME    agreement and consistency as a page, and its plots
    GET  /api/results               the same as JSON

    NEXT = {
      pair: id or null (nothing to do for this annotator),
      question: text, first: clip url, second: clip url,        (null without a pair)
      progress: {done, left, seconds_left: number or null},      counts of this annotator
      upcoming: [{pair, question, first, second}, ...],          to preload, the next one first, at most 4
      undo: {pair, nonce} or null,                               this annotator's last answer, which may be undone
      waiting: bool                                              more pairs may come by themselves: ask again later
    }

``nonce`` is a random word (8 to 64 letters, digits, - or _) that the page makes for each answer and keeps while it
tries again: an answer that was recorded already is acknowledged (``replayed``) and changes nothing. ``seconds`` is how
long the annotator took. An annotator is a name of 1 to 64 printable characters, without spaces at its ends. The same
pair comes back from /api/next until it is answered, also after a reload. After an undo, NEXT is the undone pair.

Errors have a JSON body {"error": one sentence}, and nothing was changed: 400 malformed, 401 no or another token, 403
another host or origin, 404 no such thing, 405 method, 409 conflicts (answered already under another nonce, an answer
that can no longer be undone), 413 too long, 415 not JSON, 503 a clip that is not ready (Retry-After: seconds).

Clips come from ``clips.start(folder, database)``, which returns what ``app.Clips`` describes: it renders in the
background, in the order of the last ``want``, and answers immediately. Segments are read from the database by
``store.Store(database).segment(id)``: float32 observations and actions, and the simulator's id.
"""
