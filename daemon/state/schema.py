"""The schema of the state database."""

from __future__ import annotations

VERSION = 2

SCHEMA = """
CREATE TABLE meta(key TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE streams(stream BLOB PRIMARY KEY, source TEXT NOT NULL, seq INTEGER NOT NULL, head BLOB NOT NULL,
  head_time INTEGER NOT NULL, next_file_id INTEGER NOT NULL, active INTEGER NOT NULL) WITHOUT ROWID;
CREATE UNIQUE INDEX streams_source ON streams(source) WHERE active = 1;
CREATE TABLE snapshots(stream BLOB, seq INTEGER, name TEXT NOT NULL, time INTEGER NOT NULL, clock INTEGER NOT NULL,
  complete INTEGER NOT NULL, statistics BLOB NOT NULL, PRIMARY KEY(stream, seq)) WITHOUT ROWID;
CREATE TABLE objects(position INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, stream BLOB NOT NULL,
  seq INTEGER NOT NULL, is_manifest INTEGER NOT NULL, sha256 BLOB NOT NULL, size INTEGER NOT NULL,
  released INTEGER NOT NULL DEFAULT 0);
CREATE INDEX objects_waiting ON objects(released) WHERE released = 0;
CREATE TABLE receipts(name TEXT, provider TEXT, at INTEGER NOT NULL, PRIMARY KEY(name, provider)) WITHOUT ROWID;
CREATE TABLE frontiers(stream BLOB, provider TEXT, seq INTEGER NOT NULL, at INTEGER NOT NULL,
  PRIMARY KEY(stream, provider)) WITHOUT ROWID;
CREATE TABLE stack(stream BLOB, last_seq INTEGER, level INTEGER NOT NULL, first_seq INTEGER NOT NULL,
  first_time INTEGER NOT NULL, last_time INTEGER NOT NULL, parts BLOB NOT NULL, body BLOB NOT NULL,
  PRIMARY KEY(stream, last_seq)) WITHOUT ROWID;
CREATE TABLE paths(stream BLOB, path BLOB, file_id INTEGER NOT NULL, PRIMARY KEY(stream, path)) WITHOUT ROWID;
CREATE TABLE files(stream BLOB, file_id INTEGER, identity BLOB NOT NULL, record BLOB NOT NULL, content BLOB,
  PRIMARY KEY(stream, file_id)) WITHOUT ROWID;
CREATE TABLE databases(stream BLOB, file_id INTEGER, page_size INTEGER NOT NULL, page_count INTEGER NOT NULL,
  signature BLOB NOT NULL, digest BLOB, PRIMARY KEY(stream, file_id)) WITHOUT ROWID;
CREATE TABLE runs(position INTEGER PRIMARY KEY, stream BLOB NOT NULL, file_id INTEGER NOT NULL,
  page_size INTEGER NOT NULL, pages BLOB NOT NULL, pack BLOB NOT NULL, slot INTEGER NOT NULL, blob BLOB NOT NULL);
CREATE INDEX runs_file ON runs(stream, file_id);
CREATE TABLE redo(position INTEGER PRIMARY KEY, stream BLOB NOT NULL, file_id INTEGER NOT NULL,
  page_size INTEGER NOT NULL, reach INTEGER NOT NULL, runs BLOB NOT NULL);
CREATE TABLE partials(stream BLOB, path BLOB, identity BLOB NOT NULL, content BLOB NOT NULL,
  PRIMARY KEY(stream, path)) WITHOUT ROWID;
CREATE TABLE uploads(provider TEXT PRIMARY KEY, last_success INTEGER, last_error TEXT, last_error_at INTEGER)
  WITHOUT ROWID;
CREATE TABLE backups(source TEXT PRIMARY KEY, last_success INTEGER, problems INTEGER NOT NULL, error TEXT,
  error_at INTEGER) WITHOUT ROWID;
"""

SINCE_1 = """
CREATE TABLE capsules(name TEXT PRIMARY KEY, proof BLOB NOT NULL, failed TEXT) WITHOUT ROWID;
CREATE TABLE checkpoints(number INTEGER PRIMARY KEY, name TEXT NOT NULL, sha256 BLOB NOT NULL, at INTEGER NOT NULL);
CREATE TABLE condemned(name TEXT PRIMARY KEY, number INTEGER NOT NULL, is_manifest INTEGER NOT NULL,
  size INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE swept(name TEXT, provider TEXT, at INTEGER NOT NULL, PRIMARY KEY(name, provider)) WITHOUT ROWID;
CREATE TABLE sweeps(provider TEXT PRIMARY KEY, number INTEGER NOT NULL, at INTEGER NOT NULL, refused TEXT,
  objects INTEGER NOT NULL, bytes INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE known(blob BLOB, pack BLOB, slot INTEGER, PRIMARY KEY(blob, pack, slot)) WITHOUT ROWID;
"""
"""What version 2 added: proofs of capsules until an unlock, prune's own knowledge, blobs of streams that ended."""
