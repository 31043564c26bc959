"""What `python launch.py --help` says."""

USAGE = """\
Edit a language model's facts and score the result.

  python launch.py --config=configs/quickstart.py
  python launch.py --mode=edit --facts=my_facts.csv --workdir=mine
  python launch.py --config=configs/quickstart.py:editor=ultraedit --config.num_seq=20 --config.dataset.n_edits=20
  python launch.py --mode=eval --workdir=runs/quickstart-...

--config=FILE[:ARGS]     a config file, see configs/; ARGS: editor=rledit or editor=rledit,iters=2;
                         the editors are emsedit, rledit, malmen, mend, ultraedit, see docs/METHODS.md
--config.FIELD=VALUE     overrides a field, after --config; emsedit_jax/run/defaults.py and settings.py
                         there list them all. For instance
                           --config.num_seq=20             edit batches in a row; 1: batch mode (docs/CONFIGS.md)
                           --config.dataset.n_edits=10     facts of a batch
                           --config.dataset.train_path=F --config.dataset.valid_path=F
                           --config.dataset.train_rows=0:4096 --config.dataset.rows=4096:8192   rows of these files
                           --config.model.name_or_path=D   a local Hugging Face directory, or smollm2-135m
                           --config.model.edit_modules="('*.{11..15}.mlp.up_proj',)"   the linear layers to edit
                           --config.editor.lr=1e-3 --config.editor.iters=2   length of an edit step (eta), and how many
                           --config.editor.max_steps=-1    training batches (malmen, mend, or num_seq=1); -1: all
                           --config.editor.load=RUN        its networks (they turn a fact into a weight change)
                           --config.dataset.hold=6         similar facts, for each, that its edit leaves alone
                           --config.mesh.data=2 --config.mesh.model=4   devices over prompts, and over the model
--workdir=FOLDER         where results go (default: runs/<config>-<time>)
--mode=MODE              train: train, edit and score (default); edit: your own --facts=FILE, .csv or .jsonl (see
                         docs/FACTS.md), with --config or without (--yes: do not ask);
                         generate: continue --prompt=TEXT (or what you type) with the edits of --workdir;
                         eval: score these edits again; export: write the model with them to the folder --to, as
                         Hugging Face has it; or --as=deltas: the changes of its weights alone; --as=lora: an adapter;
                         compare: finished runs side by side, --workdir=RUN,RUN,... (in --to: runs/compare-<time>);
                         report: write a run's report.html anew, --workdir=RUN;
                         undo: take batches of edits back, --workdir=RUN --batches=3,5-7 (9-: from the ninth on);
                         replay: make the run's edits anew from its ledger (the record of its batches, docs/WORKDIR.md);
                         merge: the edits of two runs together, --workdir=RUN,RUN --to=FOLDER;
                         compact: a run's edits as one change, --workdir=RUN --to=FOLDER;
                         serve: a page to edit by hand (--port=8765, --host, --token, --workdir), see docs/SERVE.md
--cluster                this process is one of several, as SLURM, GKE, Cloud TPU or Open MPI started them; by hand:
                         --coordinator=HOST:PORT --processes=N --process=I (from 0); see docs/DEVICES.md

Exit codes: 0 done, 2 bad input, 75 stopped and saved (the same command with its --workdir goes on), 130 interrupted."""
