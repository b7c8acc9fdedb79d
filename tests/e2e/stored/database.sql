BEGIN TRANSACTION;
CREATE TABLE dead_letter (
  id            INTEGER PRIMARY KEY AUTOINCREMENT,
  queue         TEXT    NOT NULL,
  body          TEXT    NOT NULL,
  job_id        TEXT    NOT NULL,
  reason        TEXT    NOT NULL,
  failure_class TEXT    NOT NULL,
  attempts      INTEGER NOT NULL,
  tail          TEXT    NOT NULL,
  grp           TEXT    NOT NULL,
  buried_at     REAL    NOT NULL
);
INSERT INTO "dead_letter" VALUES(1,'hevc','{"hevcq":1,"kind":"encode","source":{"bucket":"library","key":"TODO/all/srv/hevcq-stored/lib/damaged.mkv","version":"6058-1795393035702664915-1474572","size":6058},"profile":"hevc","chunk":null,"group":""}','4b4cbd7f51d0dbabca06fa28ba9d195f','/srv/hevcq-stored/lib/damaged.mkv is damaged: Invalid NAL unit size (0 > 148) (and 2 more complaints). Replace the file by an intact copy; the original was not touched.','damaged',1,'[]','',1.79539303674337887765e+09);
CREATE TABLE discarded (
  version TEXT PRIMARY KEY,
  key     TEXT NOT NULL
) WITHOUT ROWID;
CREATE TABLE file (
  path     BLOB    NOT NULL UNIQUE,
  size     INTEGER NOT NULL,
  mtime_ns INTEGER NOT NULL,
  inode    INTEGER NOT NULL,
  device   INTEGER NOT NULL,
  facts    TEXT    NOT NULL,
  info     TEXT,
  problem  TEXT
);
INSERT INTO "file" VALUES(X'2F7372762F68657663712D73746F7265642F6C69622F646F6E652E6D6B76',6055,1795393033182513768,1474568,65024,'a533dcfb14370dc4','{"format_name":"matroska,webm","duration_s":1.0,"start_s":0.0,"size":6055,"bit_rate":48440,"streams":[{"index":0,"kind":"video","codec":"h264","profile":"High","start_s":0.0,"duration_s":1.0,"tags":{"ENCODER":"Lavc libx264","DURATION":"00:00:01.000000000"},"video":{"width":64,"height":48,"pixel_format":"yuv420p","bit_depth":8,"average_rate":"10/1","nominal_rate":"10/1","colour":{"chroma_location":"left"}}}],"tags":{"title":"done","encoder":"Lavf"}}',NULL);
INSERT INTO "file" VALUES(X'2F7372762F68657663712D73746F7265642F6C69622F6C61726765722E6D6B76',1760,1795393033454513774,1474571,65024,'a533dcfb14370dc4','{"format_name":"matroska,webm","duration_s":1.0,"start_s":0.0,"size":1760,"bit_rate":14080,"streams":[{"index":0,"kind":"video","codec":"h264","profile":"High","start_s":0.0,"duration_s":1.0,"tags":{"ENCODER":"Lavc libx264","DURATION":"00:00:01.000000000"},"video":{"width":64,"height":48,"pixel_format":"yuv420p","bit_depth":8,"average_rate":"10/1","nominal_rate":"10/1","colour":{"chroma_location":"left"}}}],"tags":{"title":"larger","encoder":"Lavf"}}',NULL);
INSERT INTO "file" VALUES(X'2F7372762F68657663712D73746F7265642F6C69622F6F6464206EC3A46D652E6D6B76',6060,1795393033263690523,1474569,65024,'a533dcfb14370dc4','{"format_name":"matroska,webm","duration_s":1.0,"start_s":0.0,"size":6060,"bit_rate":48480,"streams":[{"index":0,"kind":"video","codec":"h264","profile":"High","start_s":0.0,"duration_s":1.0,"tags":{"ENCODER":"Lavc libx264","DURATION":"00:00:01.000000000"},"video":{"width":64,"height":48,"pixel_format":"yuv420p","bit_depth":8,"average_rate":"10/1","nominal_rate":"10/1","colour":{"chroma_location":"left"}}}],"tags":{"title":"odd näme","encoder":"Lavf"}}',NULL);
INSERT INTO "file" VALUES(X'2F7372762F68657663712D73746F7265642F6C69622F736B69707065642E6D6B76',3813,1795393033362513772,1474570,65024,'a533dcfb14370dc4','{"format_name":"matroska,webm","duration_s":0.5,"start_s":0.0,"size":3813,"bit_rate":61008,"streams":[{"index":0,"kind":"video","codec":"hevc","profile":"Main","start_s":0.0,"duration_s":0.5,"tags":{"ENCODER":"Lavc libx265","DURATION":"00:00:00.500000000"},"video":{"width":64,"height":48,"pixel_format":"yuv420p","bit_depth":8,"average_rate":"10/1","nominal_rate":"10/1","colour":{"range":"tv","chroma_location":"left"}}}],"tags":{"title":"skipped","encoder":"Lavf"}}',NULL);
INSERT INTO "file" VALUES(X'2F7372762F68657663712D73746F7265642F6C69622F64616D616765642E6D6B76',6058,1795393035702664915,1474572,65024,'a533dcfb14370dc4','{"format_name":"matroska,webm","duration_s":1.0,"size":6058,"bit_rate":48464,"streams":[{"index":0,"kind":"video","codec":"h264","profile":"High","duration_s":1.0,"tags":{"ENCODER":"Lavc libx264","DURATION":"00:00:01.000000000"},"video":{"width":64,"height":48,"pixel_format":"yuv420p","bit_depth":8,"average_rate":"10/1","nominal_rate":"10/1","colour":{"chroma_location":"left"}}}],"tags":{"title":"damaged","encoder":"Lavf"}}',NULL);
INSERT INTO "file" VALUES(X'2F7372762F68657663712D73746F7265642F6C69622F7265706C616365642E6D6B76',6059,1795393037187266467,1474759,65024,'a533dcfb14370dc4','{"format_name":"matroska,webm","duration_s":1.0,"start_s":0.0,"size":6059,"bit_rate":48472,"streams":[{"index":0,"kind":"video","codec":"h264","profile":"High","start_s":0.0,"duration_s":1.0,"tags":{"ENCODER":"Lavc libx264","DURATION":"00:00:01.000000000"},"video":{"width":64,"height":48,"pixel_format":"yuv420p","bit_depth":8,"average_rate":"10/1","nominal_rate":"10/1","colour":{"chroma_location":"left"}}}],"tags":{"title":"replaced","encoder":"Lavf"}}',NULL);
INSERT INTO "file" VALUES(X'2F7372762F68657663712D73746F7265642F73776170732F737761707065642E6D6B76',6058,1795393042046513970,1474802,65024,'a533dcfb14370dc4','{"format_name":"matroska,webm","duration_s":1.0,"start_s":0.0,"size":6058,"bit_rate":48464,"streams":[{"index":0,"kind":"video","codec":"h264","profile":"High","start_s":0.0,"duration_s":1.0,"tags":{"ENCODER":"Lavc libx264","DURATION":"00:00:01.000000000"},"video":{"width":64,"height":48,"pixel_format":"yuv420p","bit_depth":8,"average_rate":"10/1","nominal_rate":"10/1","colour":{"chroma_location":"left"}}}],"tags":{"title":"swapped","encoder":"Lavf"}}',NULL);
INSERT INTO "file" VALUES(X'2F7372762F68657663712D73746F7265642F6C69622F73706C69742E6D6B76',16855,1795393043398514001,1474827,65024,'a533dcfb14370dc4','{"format_name":"matroska,webm","duration_s":8.0,"start_s":0.0,"size":16855,"bit_rate":16855,"streams":[{"index":0,"kind":"video","codec":"h264","profile":"High","start_s":0.0,"duration_s":8.0,"tags":{"ENCODER":"Lavc libx264","DURATION":"00:00:08.000000000"},"video":{"width":64,"height":48,"pixel_format":"yuv420p","bit_depth":8,"average_rate":"10/1","nominal_rate":"10/1","colour":{"chroma_location":"left"}}}],"tags":{"title":"split","encoder":"Lavf"}}',NULL);
INSERT INTO "file" VALUES(X'2F7372762F68657663712D73746F7265642F6C69622F77616974696E672E6D6B76',6058,1795393046218514066,1474830,65024,'a533dcfb14370dc4','{"format_name":"matroska,webm","duration_s":1.0,"start_s":0.0,"size":6058,"bit_rate":48464,"streams":[{"index":0,"kind":"video","codec":"h264","profile":"High","start_s":0.0,"duration_s":1.0,"tags":{"ENCODER":"Lavc libx264","DURATION":"00:00:01.000000000"},"video":{"width":64,"height":48,"pixel_format":"yuv420p","bit_depth":8,"average_rate":"10/1","nominal_rate":"10/1","colour":{"chroma_location":"left"}}}],"tags":{"title":"waiting","encoder":"Lavf"}}',NULL);
CREATE TABLE job (
  seq              INTEGER PRIMARY KEY,
  job_id           TEXT    NOT NULL UNIQUE,
  bucket           TEXT    NOT NULL,
  key              TEXT    NOT NULL,
  version          TEXT    NOT NULL,
  size             INTEGER NOT NULL,
  profile          TEXT    NOT NULL,
  state            TEXT    NOT NULL,
  fence            INTEGER NOT NULL DEFAULT 0,
  failures         INTEGER NOT NULL DEFAULT 0,
  crashes          INTEGER NOT NULL DEFAULT 0,
  owner            TEXT    NOT NULL DEFAULT '',
  lease_until      REAL    NOT NULL DEFAULT 0,
  phase            TEXT,
  percent          REAL,
  speed            REAL,
  eta_s            REAL,
  reason           TEXT    NOT NULL DEFAULT '',
  failure_class    TEXT,
  rendition_key    TEXT,
  rendition_size   INTEGER,
  rendition_sha256 TEXT,
  certificate_key  TEXT,
  created_at       REAL    NOT NULL,
  updated_at       REAL    NOT NULL,
  started_at       REAL,
  finished_at      REAL,
  cpu_s            REAL
, split TEXT, whole TEXT NOT NULL DEFAULT '', parent TEXT NOT NULL DEFAULT '', part_split TEXT, chunk INTEGER, frames INTEGER, doubts INTEGER NOT NULL DEFAULT 0);
INSERT INTO "job" VALUES(1,'b36ade85e64557c8a48b7203db215a14','library','TODO/all/srv/hevcq-stored/lib/done.mkv','6055-1795393033182513768-1474568',6055,'hevc','done',1,0,0,'',0.0,NULL,0.0,NULL,NULL,'',NULL,'DONE/hevc/srv/hevcq-stored/lib/done.mkv.mkv',4958,'dc66f44081fd85f7534e263c42a63f436fa725fbc4da35ce7e60561848f13cf3','DONE/hevc/srv/hevcq-stored/lib/done.mkv.mkv.dc66f44081fd85f7.certificate.json',1.79539303438782286643e+09,1.79539303488169956204e+09,1.79539303441322565082e+09,1.79539303488169956204e+09,7.35899999999999887556e-02,NULL,'','',NULL,NULL,NULL,0);
INSERT INTO "job" VALUES(2,'5f8d122192d5077ea68e6e4f81ed36b3','library','TODO/all/srv/hevcq-stored/lib/larger.mkv','1760-1795393033454513774-1474571',1760,'hevc','skipped',1,0,0,'',0.0,NULL,0.0,NULL,NULL,'not_smaller: 262.3% of the source''s size, at most 95.0% is worth it',NULL,NULL,NULL,NULL,NULL,1.79539303440414357189e+09,1.79539303471016144751e+09,1.79539303441274785992e+09,1.79539303471016144751e+09,NULL,NULL,'','',NULL,NULL,NULL,0);
INSERT INTO "job" VALUES(3,'d5fb3912d8b14f57556b8e7d08cfa84c','library','TODO/all/srv/hevcq-stored/lib/odd näme.mkv','6060-1795393033263690523-1474569',6060,'hevc','done',2,0,0,'',0.0,NULL,0.0,NULL,NULL,'',NULL,'DONE/hevc/srv/hevcq-stored/lib/odd näme.mkv.mkv',4963,'929a0921c083200f0f6f50736b713ed9a67eea6ee7b2726cfea6c45cf38f41bb','DONE/hevc/srv/hevcq-stored/lib/odd näme.mkv.mkv.929a0921c083200f.certificate.json',1.79539303441101169588e+09,1.79539304071301221844e+09,1.79539304004157686234e+09,1.79539304071301221844e+09,1.1243199999999999028e-01,NULL,'','',NULL,NULL,NULL,0);
INSERT INTO "job" VALUES(4,'4b4cbd7f51d0dbabca06fa28ba9d195f','library','TODO/all/srv/hevcq-stored/lib/damaged.mkv','6058-1795393035702664915-1474572',6058,'hevc','dead',1,0,0,'',0.0,NULL,0.0,NULL,NULL,'/srv/hevcq-stored/lib/damaged.mkv is damaged: Invalid NAL unit size (0 > 148) (and 2 more complaints). Replace the file by an intact copy; the original was not touched.','damaged',NULL,NULL,NULL,NULL,1.7953930364789540768e+09,1.79539303674215698245e+09,1.79539303650661325462e+09,1.79539303674215698245e+09,NULL,NULL,'','',NULL,NULL,NULL,0);
INSERT INTO "job" VALUES(5,'89a40a0734c7b1fa0c010a08460b70b4','library','TODO/all/srv/hevcq-stored/lib/replaced.mkv','6059-1795393037187266467-1474759',6059,'hevc','done',1,0,0,'',0.0,NULL,0.0,NULL,NULL,'',NULL,'DONE/hevc/srv/hevcq-stored/lib/replaced.mkv.mkv',4962,'29275354b4226bad208aec1a43a2e30ca9dfec30339d23f8f6c7f17132876f2c','DONE/hevc/srv/hevcq-stored/lib/replaced.mkv.mkv.29275354b4226bad.certificate.json',1.7953930380174279213e+09,1.79539303853769874569e+09,1.79539303804988932609e+09,1.79539303853769874569e+09,8.05989999999999900959e-02,NULL,'','',NULL,NULL,NULL,0);
INSERT INTO "job" VALUES(6,'f4179be2bf8b93fec127197179d7c3fc','library','TODO/all/srv/hevcq-stored/swaps/swapped.mkv','6058-1795393042046513970-1474802',6058,'hevc','done',1,0,0,'',0.0,NULL,0.0,NULL,NULL,'',NULL,'DONE/hevc/srv/hevcq-stored/swaps/swapped.mkv.mkv',4961,'c87809bae11c71f2a3102dc861d0e123cf76d4bbc63226198b5cb69d8c6b0b3c','DONE/hevc/srv/hevcq-stored/swaps/swapped.mkv.mkv.c87809bae11c71f2.certificate.json',1.79539304271921706197e+09,1.79539304321535563469e+09,1.79539304275283575053e+09,1.79539304321535563469e+09,0.0783,NULL,'','',NULL,NULL,NULL,0);
INSERT INTO "job" VALUES(7,'0c185e2c741fe70fb1b6124be9f2bb27','library','TODO/all/srv/hevcq-stored/lib/split.mkv','16855-1795393043398514001-1474827',16855,'chunked','split',1,0,0,'',0.0,NULL,0.0,NULL,NULL,'',NULL,NULL,NULL,NULL,NULL,1.79539304420850849152e+09,1.79539304597397041327e+09,1.79539304558444690702e+09,NULL,NULL,'{"name":"0f2d55466e6de9ed-1","chunks":4,"frames":80,"seconds":8.0,"plan_sha256":"35f7b5166954df44b4d9dca148f6255840259cbd51100510184b176f7be5b539","announced":true}','','',NULL,NULL,NULL,0);
INSERT INTO "job" VALUES(8,'0c185e2c741fe70fb1b6124be9f2bb27.0f2d55466e6de9ed-1.0','library','TODO/all/srv/hevcq-stored/lib/split.mkv','16855-1795393043398514001-1474827',16855,'chunked','done',1,0,0,'',0.0,NULL,0.0,NULL,NULL,'',NULL,'work/0c185e2c741fe70fb1b6124be9f2bb27/0f2d55466e6de9ed-1/00000.part',6448,'9c0373a1453c42a9f43578ff5c7cd447fb3ae568455ccfb8db04d3908dcb080b','work/0c185e2c741fe70fb1b6124be9f2bb27/0f2d55466e6de9ed-1/00000.part.9c0373a1453c42a9.json',1.79539304597397041327e+09,1.79539304614766097073e+09,1.79539304597764325143e+09,1.79539304614766097073e+09,9.16119999999999851114e-02,NULL,'','0c185e2c741fe70fb1b6124be9f2bb27','0f2d55466e6de9ed-1',0,20,0);
INSERT INTO "job" VALUES(9,'0c185e2c741fe70fb1b6124be9f2bb27.0f2d55466e6de9ed-1.1','library','TODO/all/srv/hevcq-stored/lib/split.mkv','16855-1795393043398514001-1474827',16855,'chunked','queued',0,0,0,'',0.0,NULL,NULL,NULL,NULL,'',NULL,NULL,NULL,NULL,NULL,1.79539304597397041327e+09,1.79539304597397041327e+09,NULL,NULL,NULL,NULL,'','0c185e2c741fe70fb1b6124be9f2bb27','0f2d55466e6de9ed-1',1,20,0);
INSERT INTO "job" VALUES(10,'0c185e2c741fe70fb1b6124be9f2bb27.0f2d55466e6de9ed-1.2','library','TODO/all/srv/hevcq-stored/lib/split.mkv','16855-1795393043398514001-1474827',16855,'chunked','queued',0,0,0,'',0.0,NULL,NULL,NULL,NULL,'',NULL,NULL,NULL,NULL,NULL,1.79539304597397041327e+09,1.79539304597397041327e+09,NULL,NULL,NULL,NULL,'','0c185e2c741fe70fb1b6124be9f2bb27','0f2d55466e6de9ed-1',2,20,0);
INSERT INTO "job" VALUES(11,'0c185e2c741fe70fb1b6124be9f2bb27.0f2d55466e6de9ed-1.3','library','TODO/all/srv/hevcq-stored/lib/split.mkv','16855-1795393043398514001-1474827',16855,'chunked','running',1,0,0,'eb973b707585b639:0',0.0,NULL,NULL,NULL,NULL,'',NULL,NULL,NULL,NULL,NULL,1.79539304597397041327e+09,1.79539304615079140662e+09,1.79539304615079140662e+09,NULL,NULL,NULL,'','0c185e2c741fe70fb1b6124be9f2bb27','0f2d55466e6de9ed-1',3,20,0);
INSERT INTO "job" VALUES(12,'0c185e2c741fe70fb1b6124be9f2bb27.0f2d55466e6de9ed-1.join','library','TODO/all/srv/hevcq-stored/lib/split.mkv','16855-1795393043398514001-1474827',16855,'chunked','queued',0,0,0,'',0.0,NULL,NULL,NULL,NULL,'',NULL,NULL,NULL,NULL,NULL,1.79539304597397041327e+09,1.79539304597397041327e+09,NULL,NULL,NULL,NULL,'','0c185e2c741fe70fb1b6124be9f2bb27','0f2d55466e6de9ed-1',NULL,0,0);
INSERT INTO "job" VALUES(13,'b6941393b6b1998d70777a703a202cf4','library','TODO/all/srv/hevcq-stored/lib/waiting.mkv','6058-1795393046218514066-1474830',6058,'hevc','queued',0,0,0,'',0.0,NULL,NULL,NULL,NULL,'',NULL,NULL,NULL,NULL,NULL,1.79539304702186059952e+09,1.79539304702186059952e+09,NULL,NULL,NULL,NULL,'','',NULL,NULL,NULL,0);
CREATE TABLE message (
  id         INTEGER PRIMARY KEY AUTOINCREMENT,
  queue      TEXT    NOT NULL,
  state      INTEGER NOT NULL,
  turn       INTEGER NOT NULL,
  visible_at REAL    NOT NULL,
  attempts   INTEGER NOT NULL DEFAULT 0,
  held       INTEGER,
  owner      TEXT    NOT NULL DEFAULT '',
  grp        TEXT    NOT NULL DEFAULT '',
  sent_at    REAL    NOT NULL,
  body       TEXT    NOT NULL
);
INSERT INTO "message" VALUES(10,'chunked',0,2,1.79539307615024042131e+09,1,NULL,'','7d8070a8ea4017f6171b2df9e6859475',1.79539304597534561157e+09,'{"hevcq":1,"kind":"chunk","source":{"bucket":"library","key":"TODO/all/srv/hevcq-stored/lib/split.mkv","version":"16855-1795393043398514001-1474827","size":16855},"profile":"chunked","chunk":3,"group":"7d8070a8ea4017f6171b2df9e6859475","split":"0f2d55466e6de9ed-1"}');
INSERT INTO "message" VALUES(11,'chunked',0,3,1.79539304597534561157e+09,0,NULL,'','7d8070a8ea4017f6171b2df9e6859475',1.79539304597534561157e+09,'{"hevcq":1,"kind":"chunk","source":{"bucket":"library","key":"TODO/all/srv/hevcq-stored/lib/split.mkv","version":"16855-1795393043398514001-1474827","size":16855},"profile":"chunked","chunk":1,"group":"7d8070a8ea4017f6171b2df9e6859475","split":"0f2d55466e6de9ed-1"}');
INSERT INTO "message" VALUES(12,'chunked',0,4,1.79539304597534561157e+09,0,NULL,'','7d8070a8ea4017f6171b2df9e6859475',1.79539304597534561157e+09,'{"hevcq":1,"kind":"chunk","source":{"bucket":"library","key":"TODO/all/srv/hevcq-stored/lib/split.mkv","version":"16855-1795393043398514001-1474827","size":16855},"profile":"chunked","chunk":2,"group":"7d8070a8ea4017f6171b2df9e6859475","split":"0f2d55466e6de9ed-1"}');
INSERT INTO "message" VALUES(13,'hevc',0,1,1.79539304702186059952e+09,0,NULL,'','',1.79539304702186059952e+09,'{"hevcq":1,"kind":"encode","source":{"bucket":"library","key":"TODO/all/srv/hevcq-stored/lib/waiting.mkv","version":"6058-1795393046218514066-1474830","size":6058},"profile":"hevc","chunk":null,"group":""}');
CREATE TABLE object (
  key         TEXT    PRIMARY KEY,
  version     TEXT    NOT NULL,
  size        INTEGER NOT NULL,
  sha256      TEXT    NOT NULL,
  job_id      TEXT    NOT NULL,
  fence       INTEGER NOT NULL,
  metadata    TEXT    NOT NULL,
  modified_at REAL    NOT NULL
) WITHOUT ROWID;
INSERT INTO "object" VALUES('DONE/hevc/srv/hevcq-stored/swaps/swapped.mkv.mkv','ae688fe6021ae797-e229410535ac',4961,'c87809bae11c71f2a3102dc861d0e123cf76d4bbc63226198b5cb69d8c6b0b3c','f4179be2bf8b93fec127197179d7c3fc',1,'{"certificate": "DONE/hevc/srv/hevcq-stored/swaps/swapped.mkv.mkv.c87809bae11c71f2.certificate.json", "fence": "1", "job": "f4179be2bf8b93fec127197179d7c3fc", "profile": "hevc", "revision": "64cf45f5ae26", "sha256": "c87809bae11c71f2a3102dc861d0e123cf76d4bbc63226198b5cb69d8c6b0b3c"}',1.79539304321388435356e+09);
INSERT INTO "object" VALUES('DONE/hevc/srv/hevcq-stored/swaps/swapped.mkv.mkv.c87809bae11c71f2.certificate.json','ae688fe6021ae797-95867cc2e882',3136,'8abf2abef66d137f06653387a50cfce2330cb6ff917c9178364e00c84b2a7845','',0,'{"job": "f4179be2bf8b93fec127197179d7c3fc"}',1.79539304321150135993e+09);
INSERT INTO "object" VALUES('work/0c185e2c741fe70fb1b6124be9f2bb27/0f2d55466e6de9ed-1/00000.part','eb973b707585b639-0b346d2f9bb9',6448,'9c0373a1453c42a9f43578ff5c7cd447fb3ae568455ccfb8db04d3908dcb080b','0c185e2c741fe70fb1b6124be9f2bb27.0f2d55466e6de9ed-1.0',1,'{"fence": "1", "frames": "20", "job": "0c185e2c741fe70fb1b6124be9f2bb27.0f2d55466e6de9ed-1.0", "report": "work/0c185e2c741fe70fb1b6124be9f2bb27/0f2d55466e6de9ed-1/00000.part.9c0373a1453c42a9.json", "sha256": "9c0373a1453c42a9f43578ff5c7cd447fb3ae568455ccfb8db04d3908dcb080b"}',1.79539304614633059503e+09);
INSERT INTO "object" VALUES('work/0c185e2c741fe70fb1b6124be9f2bb27/0f2d55466e6de9ed-1/00000.part.9c0373a1453c42a9.json','eb973b707585b639-8a5e6770c4e2',1199,'57c41b0b07154aad6c0cf25ad49a397d96e3ea69d01edc6b18157ce97c8f0590','',0,'{"job": "0c185e2c741fe70fb1b6124be9f2bb27"}',1.79539304614416766166e+09);
INSERT INTO "object" VALUES('work/0c185e2c741fe70fb1b6124be9f2bb27/0f2d55466e6de9ed-1/plan.json','eb973b707585b639-313150099d9c',4917,'35f7b5166954df44b4d9dca148f6255840259cbd51100510184b176f7be5b539','',0,'{"job": "0c185e2c741fe70fb1b6124be9f2bb27"}',1.79539304597283339501e+09);
CREATE TABLE placement (
  seq        INTEGER PRIMARY KEY,
  job_id     TEXT    NOT NULL UNIQUE,
  root       BLOB    NOT NULL,
  source     BLOB    NOT NULL,
  size       INTEGER NOT NULL,
  mtime_ns   INTEGER NOT NULL,
  inode      INTEGER NOT NULL,
  device     INTEGER NOT NULL,
  profile    TEXT    NOT NULL,
  mode       TEXT    NOT NULL,
  target     BLOB    NOT NULL,
  keep_days  REAL    NOT NULL,
  state      TEXT    NOT NULL,
  detail     TEXT    NOT NULL,
  retained   BLOB,
  sha256     TEXT    NOT NULL,
  updated_at REAL    NOT NULL
);
INSERT INTO "placement" VALUES(1,'b36ade85e64557c8a48b7203db215a14',X'2F7372762F68657663712D73746F7265642F6C6962',X'2F7372762F68657663712D73746F7265642F6C69622F646F6E652E6D6B76',6055,1795393033182513768,1474568,65024,'hevc','beside',X'2F7372762F68657663712D73746F7265642F6C69622F646F6E652E686576632E6D6B76',30.0,'placed','',NULL,'dc66f44081fd85f7534e263c42a63f436fa725fbc4da35ce7e60561848f13cf3',1.79539303498544478409e+09);
INSERT INTO "placement" VALUES(2,'5f8d122192d5077ea68e6e4f81ed36b3',X'2F7372762F68657663712D73746F7265642F6C6962',X'2F7372762F68657663712D73746F7265642F6C69622F6C61726765722E6D6B76',1760,1795393033454513774,1474571,65024,'hevc','beside',X'2F7372762F68657663712D73746F7265642F6C69622F6C61726765722E686576632E6D6B76',30.0,'waiting','',NULL,'',1.79539303439881706234e+09);
INSERT INTO "placement" VALUES(3,'d5fb3912d8b14f57556b8e7d08cfa84c',X'2F7372762F68657663712D73746F7265642F6C6962',X'2F7372762F68657663712D73746F7265642F6C69622F6F6464206EC3A46D652E6D6B76',6060,1795393033263690523,1474569,65024,'hevc','beside',X'2F7372762F68657663712D73746F7265642F6C69622F6F6464206EC3A46D652E686576632E6D6B76',30.0,'placed','',NULL,'929a0921c083200f0f6f50736b713ed9a67eea6ee7b2726cfea6c45cf38f41bb',1.79539304188469195366e+09);
INSERT INTO "placement" VALUES(4,'4b4cbd7f51d0dbabca06fa28ba9d195f',X'2F7372762F68657663712D73746F7265642F6C6962',X'2F7372762F68657663712D73746F7265642F6C69622F64616D616765642E6D6B76',6058,1795393035702664915,1474572,65024,'hevc','beside',X'2F7372762F68657663712D73746F7265642F6C69622F64616D616765642E686576632E6D6B76',30.0,'waiting','',NULL,'',1.79539303646066641809e+09);
INSERT INTO "placement" VALUES(5,'89a40a0734c7b1fa0c010a08460b70b4',X'2F7372762F68657663712D73746F7265642F6C6962',X'2F7372762F68657663712D73746F7265642F6C69622F7265706C616365642E6D6B76',6059,1795393037187266467,1474759,65024,'hevc','replace',X'2F7372762F68657663712D73746F7265642F6C69622F7265706C616365642E6D6B76',36500.0,'replaced','',X'2F7372762F68657663712D73746F7265642F6C69622F2E68657663712F6F726967696E616C732F323032362D31312D32332F7265706C616365642E6D6B76','29275354b4226bad208aec1a43a2e30ca9dfec30339d23f8f6c7f17132876f2c',1.79539303863216114041e+09);
INSERT INTO "placement" VALUES(6,'f4179be2bf8b93fec127197179d7c3fc',X'2F7372762F68657663712D73746F7265642F7377617073',X'2F7372762F68657663712D73746F7265642F73776170732F737761707065642E6D6B76',6058,1795393042046513970,1474802,65024,'hevc','replace',X'2F7372762F68657663712D73746F7265642F73776170732F737761707065642E6D6B76',36500.0,'waiting','',NULL,'',1.79539304271866083147e+09);
INSERT INTO "placement" VALUES(7,'0c185e2c741fe70fb1b6124be9f2bb27',X'2F7372762F68657663712D73746F7265642F6C6962',X'2F7372762F68657663712D73746F7265642F6C69622F73706C69742E6D6B76',16855,1795393043398514001,1474827,65024,'chunked','beside',X'2F7372762F68657663712D73746F7265642F6C69622F73706C69742E6368756E6B65642E6D6B76',30.0,'waiting','',NULL,'',1.79539304420806264872e+09);
INSERT INTO "placement" VALUES(8,'b6941393b6b1998d70777a703a202cf4',X'2F7372762F68657663712D73746F7265642F6C6962',X'2F7372762F68657663712D73746F7265642F6C69622F77616974696E672E6D6B76',6058,1795393046218514066,1474830,65024,'hevc','beside',X'2F7372762F68657663712D73746F7265642F6C69622F77616974696E672E686576632E6D6B76',30.0,'waiting','',NULL,'',1.7953930470213117599e+09);
CREATE TABLE remembered (
  source_sha256 TEXT NOT NULL,
  profile       TEXT NOT NULL,
  revision      TEXT NOT NULL,
  reason        TEXT NOT NULL,
  made_at       REAL NOT NULL,
  PRIMARY KEY (source_sha256, profile, revision)
) WITHOUT ROWID;
INSERT INTO "remembered" VALUES('2d3eee25e6d4143c4ad7d12bce295a04383fd890df1f5fe1774ac4e4f7744a9d','hevc','64cf45f5ae26','262.3% of the source''s size, at most 95.0% is worth it',1.79539303470912671089e+09);
CREATE TABLE reopened (
  job_id TEXT NOT NULL,
  at     REAL NOT NULL,
  who    TEXT NOT NULL,
  why    TEXT NOT NULL,
  was    TEXT NOT NULL,
  reason TEXT NOT NULL
);
INSERT INTO "reopened" VALUES('d5fb3912d8b14f57556b8e7d08cfa84c',1.79539303927810025215e+09,'root','reprocess','done','');
CREATE TABLE source (
  source_id   TEXT    PRIMARY KEY,
  path        BLOB    NOT NULL,
  size        INTEGER NOT NULL,
  mtime_ns    INTEGER NOT NULL,
  inode       INTEGER NOT NULL,
  device      INTEGER NOT NULL,
  accepted_at REAL    NOT NULL
) WITHOUT ROWID;
INSERT INTO "source" VALUES('5098510256d9cbb7a65ad19cd2de1546',X'2F7372762F68657663712D73746F7265642F6C69622F7265706C616365642E6D6B76',6059,1795393037187266467,1474759,65024,1.79539303798662066465e+09);
INSERT INTO "source" VALUES('6520cfa5186955b8a2934fb35bb697d3',X'2F7372762F68657663712D73746F7265642F6C69622F6C61726765722E6D6B76',1760,1795393033454513774,1474571,65024,1.79539303439413833619e+09);
INSERT INTO "source" VALUES('757a04d7e2fad202ee3f65e3b8ea4dbf',X'2F7372762F68657663712D73746F7265642F6C69622F6F6464206EC3A46D652E6D6B76',6060,1795393033263690523,1474569,65024,1.79539303440748953819e+09);
INSERT INTO "source" VALUES('7d8070a8ea4017f6171b2df9e6859475',X'2F7372762F68657663712D73746F7265642F6C69622F73706C69742E6D6B76',16855,1795393043398514001,1474827,65024,1.79539304420774555211e+09);
INSERT INTO "source" VALUES('8e1b86ab5cfb8c87b9a7540fbc930156',X'2F7372762F68657663712D73746F7265642F6C69622F646F6E652E6D6B76',6055,1795393033182513768,1474568,65024,1.79539303438024544718e+09);
INSERT INTO "source" VALUES('d08201e65b39edb0318e0488b0e91803',X'2F7372762F68657663712D73746F7265642F73776170732F737761707065642E6D6B76',6058,1795393042046513970,1474802,65024,1.7953930427183215618e+09);
INSERT INTO "source" VALUES('e25aaffbf5d6bf115c5254c066617b07',X'2F7372762F68657663712D73746F7265642F6C69622F64616D616765642E6D6B76',6058,1795393035702664915,1474572,65024,1.79539303644552803037e+09);
INSERT INTO "source" VALUES('e2a7a7fdaacc486e88cc89d48bf65b00',X'2F7372762F68657663712D73746F7265642F6C69622F77616974696E672E6D6B76',6058,1795393046218514066,1474830,65024,1.79539304702101707453e+09);
CREATE INDEX message_ready  ON message (queue, turn)       WHERE state = 0;
CREATE INDEX message_hidden ON message (queue, visible_at) WHERE state > 0;
CREATE INDEX message_group  ON message (queue, grp, turn)  WHERE grp <> '';
CREATE INDEX dead_letter_queue ON dead_letter (queue);
CREATE INDEX dead_letter_job   ON dead_letter (job_id);
CREATE INDEX job_updated ON job (updated_at);
CREATE INDEX job_state   ON job (state, updated_at);
CREATE INDEX job_key     ON job (key);
CREATE INDEX reopened_job ON reopened (job_id, at);
CREATE INDEX placement_updated ON placement (updated_at);
CREATE INDEX placement_state   ON placement (state, updated_at);
CREATE INDEX placement_source  ON placement (source);
CREATE INDEX placement_target  ON placement (target);
CREATE INDEX job_parent ON job (parent, part_split, chunk) WHERE parent <> '';
CREATE INDEX job_profile ON job (profile, state, updated_at, parent) WHERE parent = '';
DELETE FROM "sqlite_sequence";
INSERT INTO "sqlite_sequence" VALUES('message',13);
INSERT INTO "sqlite_sequence" VALUES('dead_letter',1);
COMMIT;
PRAGMA application_id = 1751479907;
PRAGMA user_version = 3;
