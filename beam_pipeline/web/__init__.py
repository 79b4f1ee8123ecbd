"""The command ``serve``: a web application over an output, where operators see and mark alerts.

beam_pipeline/web/index.py       the alerts, incidents and marks of an output in SQLite
beam_pipeline/web/following.py   one thread that follows the output, whatever the number of clients
beam_pipeline/web/pictures.py    images of the output, upright and scaled
beam_pipeline/web/views.py       what the pages show
beam_pipeline/web/guarding.py    headers, tokens against forged requests, and who may do what
beam_pipeline/web/console.py     what the routes share
beam_pipeline/web/forms.py       the forms that pages send
beam_pipeline/web/zones.py       zones and masks that are drawn
beam_pipeline/web/trials.py      what they would have changed
beam_pipeline/web/app.py         the routes
beam_pipeline/web/server.py      the set-up of the command, and its server
"""
