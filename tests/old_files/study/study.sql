BEGIN TRANSACTION;
CREATE TABLE alembic_version (
	version_num VARCHAR(32) NOT NULL, 
	CONSTRAINT alembic_version_pkc PRIMARY KEY (version_num)
);
INSERT INTO "alembic_version" VALUES('v3.2.0.a');
CREATE TABLE contest_claims (
	study VARCHAR(255) NOT NULL, 
	"key" VARCHAR(128) NOT NULL, 
	slot INTEGER, 
	trial INTEGER NOT NULL, 
	PRIMARY KEY (study, "key"), 
	UNIQUE (study, slot)
);
INSERT INTO "contest_claims" VALUES('study','bb40de409ed9e818:0',0,0);
INSERT INTO "contest_claims" VALUES('study','bb40de409ed9e818:1',NULL,1);
INSERT INTO "contest_claims" VALUES('study','819e08ab81c255b5:0',1,2);
INSERT INTO "contest_claims" VALUES('study','942e35ff0e410021:0',2,3);
INSERT INTO "contest_claims" VALUES('study','942e35ff0e410021:1',NULL,4);
INSERT INTO "contest_claims" VALUES('study','819e08ab81c255b5:1',NULL,5);
INSERT INTO "contest_claims" VALUES('study','1533f1f2d923f523:0',NULL,6);
INSERT INTO "contest_claims" VALUES('study','3bf82c287fa4c27d:0',NULL,7);
INSERT INTO "contest_claims" VALUES('study','04a6c9356c654ae8:0',NULL,8);
INSERT INTO "contest_claims" VALUES('study','196296b62b186fe4:0',NULL,9);
CREATE TABLE studies (
	study_id INTEGER NOT NULL, 
	study_name VARCHAR(512) NOT NULL, 
	PRIMARY KEY (study_id)
);
INSERT INTO "studies" VALUES(1,'study');
CREATE TABLE study_directions (
	study_direction_id INTEGER NOT NULL, 
	direction VARCHAR(8) NOT NULL, 
	study_id INTEGER NOT NULL, 
	objective INTEGER NOT NULL, 
	PRIMARY KEY (study_direction_id), 
	UNIQUE (study_id, objective), 
	FOREIGN KEY(study_id) REFERENCES studies (study_id)
);
INSERT INTO "study_directions" VALUES(1,'MINIMIZE',1,0);
CREATE TABLE study_system_attributes (
	study_system_attribute_id INTEGER NOT NULL, 
	study_id INTEGER, 
	"key" VARCHAR(512), 
	value_json TEXT, 
	PRIMARY KEY (study_system_attribute_id), 
	UNIQUE (study_id, "key"), 
	FOREIGN KEY(study_id) REFERENCES studies (study_id)
);
CREATE TABLE study_user_attributes (
	study_user_attribute_id INTEGER NOT NULL, 
	study_id INTEGER, 
	"key" VARCHAR(512), 
	value_json TEXT, 
	PRIMARY KEY (study_user_attribute_id), 
	UNIQUE (study_id, "key"), 
	FOREIGN KEY(study_id) REFERENCES studies (study_id)
);
INSERT INTO "study_user_attributes" VALUES(1,1,'finished','true');
INSERT INTO "study_user_attributes" VALUES(2,1,'refined','{"explored": 3, "rounds": 2}');
CREATE TABLE trial_heartbeats (
	trial_heartbeat_id INTEGER NOT NULL, 
	trial_id INTEGER NOT NULL, 
	heartbeat DATETIME NOT NULL, 
	PRIMARY KEY (trial_heartbeat_id), 
	UNIQUE (trial_id), 
	FOREIGN KEY(trial_id) REFERENCES trials (trial_id)
);
INSERT INTO "trial_heartbeats" VALUES(1,1,'2026-11-26 01:36:26');
INSERT INTO "trial_heartbeats" VALUES(2,2,'2026-11-26 01:36:26');
INSERT INTO "trial_heartbeats" VALUES(3,3,'2026-11-26 01:36:28');
INSERT INTO "trial_heartbeats" VALUES(4,4,'2026-11-26 01:36:28');
INSERT INTO "trial_heartbeats" VALUES(5,5,'2026-11-26 01:36:28');
INSERT INTO "trial_heartbeats" VALUES(6,6,'2026-11-26 01:36:29');
INSERT INTO "trial_heartbeats" VALUES(7,7,'2026-11-26 01:36:33');
INSERT INTO "trial_heartbeats" VALUES(8,8,'2026-11-26 01:36:34');
INSERT INTO "trial_heartbeats" VALUES(9,9,'2026-11-26 01:36:35');
INSERT INTO "trial_heartbeats" VALUES(10,10,'2026-11-26 01:36:36');
CREATE TABLE trial_intermediate_values (
	trial_intermediate_value_id INTEGER NOT NULL, 
	trial_id INTEGER NOT NULL, 
	step INTEGER NOT NULL, 
	intermediate_value FLOAT, 
	intermediate_value_type VARCHAR(7) NOT NULL, 
	PRIMARY KEY (trial_intermediate_value_id), 
	UNIQUE (trial_id, step), 
	FOREIGN KEY(trial_id) REFERENCES trials (trial_id)
);
CREATE TABLE trial_params (
	param_id INTEGER NOT NULL, 
	trial_id INTEGER, 
	param_name VARCHAR(512), 
	param_value FLOAT, 
	distribution_json TEXT, 
	PRIMARY KEY (param_id), 
	UNIQUE (trial_id, param_name), 
	FOREIGN KEY(trial_id) REFERENCES trials (trial_id)
);
INSERT INTO "trial_params" VALUES(1,1,'width',16.0,'{"name": "IntDistribution", "attributes": {"log": false, "step": 2, "low": 4, "high": 16}}');
INSERT INTO "trial_params" VALUES(2,1,'growth_2',2.0,'{"name": "CategoricalDistribution", "attributes": {"choices": [1.0, 1.5, 2.0, 2.5]}}');
INSERT INTO "trial_params" VALUES(3,1,'growth_3',2.0,'{"name": "CategoricalDistribution", "attributes": {"choices": [1.0, 1.5, 2.0, 2.5]}}');
INSERT INTO "trial_params" VALUES(4,1,'blocks_1',0.0,'{"name": "CategoricalDistribution", "attributes": {"choices": [1, 2]}}');
INSERT INTO "trial_params" VALUES(5,1,'blocks_2',0.0,'{"name": "CategoricalDistribution", "attributes": {"choices": [1, 2]}}');
INSERT INTO "trial_params" VALUES(6,1,'blocks_3',0.0,'{"name": "CategoricalDistribution", "attributes": {"choices": [1, 2]}}');
INSERT INTO "trial_params" VALUES(7,1,'shortcut',0.0,'{"name": "CategoricalDistribution", "attributes": {"choices": ["projection", "pad"]}}');
INSERT INTO "trial_params" VALUES(8,1,'structured',0.0,'{"name": "CategoricalDistribution", "attributes": {"choices": [0.0, 0.1, 0.2, 0.3, 0.4]}}');
INSERT INTO "trial_params" VALUES(9,1,'sparsity',3.0,'{"name": "CategoricalDistribution", "attributes": {"choices": [0.0, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8]}}');
INSERT INTO "trial_params" VALUES(10,1,'activation_bits',2.0,'{"name": "CategoricalDistribution", "attributes": {"choices": [2, 3, 4, 5, 6, 8]}}');
INSERT INTO "trial_params" VALUES(11,1,'shift_1',0.0,'{"name": "CategoricalDistribution", "attributes": {"choices": [0, 1]}}');
INSERT INTO "trial_params" VALUES(12,1,'shift_3',0.0,'{"name": "CategoricalDistribution", "attributes": {"choices": [0, -1]}}');
INSERT INTO "trial_params" VALUES(13,1,'first_bits',1.0,'{"name": "CategoricalDistribution", "attributes": {"choices": [5, 8]}}');
INSERT INTO "trial_params" VALUES(14,1,'last_bits',1.0,'{"name": "CategoricalDistribution", "attributes": {"choices": [4, 8]}}');
INSERT INTO "trial_params" VALUES(15,1,'learning_rate',0.2,'{"name": "FloatDistribution", "attributes": {"step": null, "low": 0.05, "high": 0.6, "log": true}}');
INSERT INTO "trial_params" VALUES(16,1,'weight_decay',2.0,'{"name": "CategoricalDistribution", "attributes": {"choices": [0.0001, 0.0002, 0.0005, 0.001]}}');
INSERT INTO "trial_params" VALUES(17,1,'schedule',1.0,'{"name": "CategoricalDistribution", "attributes": {"choices": ["cosine", "onecycle"]}}');
INSERT INTO "trial_params" VALUES(18,1,'label_smoothing',0.0,'{"name": "CategoricalDistribution", "attributes": {"choices": [0.0, 0.05, 0.1]}}');
INSERT INTO "trial_params" VALUES(19,1,'mixup',0.0,'{"name": "CategoricalDistribution", "attributes": {"choices": [0.0, 0.2]}}');
INSERT INTO "trial_params" VALUES(20,1,'tune_share',1.0,'{"name": "CategoricalDistribution", "attributes": {"choices": [0.35, 0.5, 0.65]}}');
INSERT INTO "trial_params" VALUES(21,1,'tune_learning_rate',0.05,'{"name": "FloatDistribution", "attributes": {"step": null, "low": 0.01, "high": 0.2, "log": true}}');
INSERT INTO "trial_params" VALUES(22,2,'width',16.0,'{"name": "IntDistribution", "attributes": {"log": false, "step": 2, "low": 4, "high": 16}}');
INSERT INTO "trial_params" VALUES(23,2,'growth_2',2.0,'{"name": "CategoricalDistribution", "attributes": {"choices": [1.0, 1.5, 2.0, 2.5]}}');
INSERT INTO "trial_params" VALUES(24,2,'growth_3',2.0,'{"name": "CategoricalDistribution", "attributes": {"choices": [1.0, 1.5, 2.0, 2.5]}}');
INSERT INTO "trial_params" VALUES(25,2,'blocks_1',0.0,'{"name": "CategoricalDistribution", "attributes": {"choices": [1, 2]}}');
INSERT INTO "trial_params" VALUES(26,2,'blocks_2',0.0,'{"name": "CategoricalDistribution", "attributes": {"choices": [1, 2]}}');
INSERT INTO "trial_params" VALUES(27,2,'blocks_3',0.0,'{"name": "CategoricalDistribution", "attributes": {"choices": [1, 2]}}');
INSERT INTO "trial_params" VALUES(28,2,'shortcut',0.0,'{"name": "CategoricalDistribution", "attributes": {"choices": ["projection", "pad"]}}');
INSERT INTO "trial_params" VALUES(29,2,'structured',0.0,'{"name": "CategoricalDistribution", "attributes": {"choices": [0.0, 0.1, 0.2, 0.3, 0.4]}}');
INSERT INTO "trial_params" VALUES(30,2,'sparsity',3.0,'{"name": "CategoricalDistribution", "attributes": {"choices": [0.0, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8]}}');
INSERT INTO "trial_params" VALUES(31,2,'activation_bits',2.0,'{"name": "CategoricalDistribution", "attributes": {"choices": [2, 3, 4, 5, 6, 8]}}');
INSERT INTO "trial_params" VALUES(32,2,'shift_1',0.0,'{"name": "CategoricalDistribution", "attributes": {"choices": [0, 1]}}');
INSERT INTO "trial_params" VALUES(33,2,'shift_3',0.0,'{"name": "CategoricalDistribution", "attributes": {"choices": [0, -1]}}');
INSERT INTO "trial_params" VALUES(34,2,'first_bits',1.0,'{"name": "CategoricalDistribution", "attributes": {"choices": [5, 8]}}');
INSERT INTO "trial_params" VALUES(35,2,'last_bits',1.0,'{"name": "CategoricalDistribution", "attributes": {"choices": [4, 8]}}');
INSERT INTO "trial_params" VALUES(36,2,'learning_rate',0.2,'{"name": "FloatDistribution", "attributes": {"step": null, "low": 0.05, "high": 0.6, "log": true}}');
INSERT INTO "trial_params" VALUES(37,2,'weight_decay',2.0,'{"name": "CategoricalDistribution", "attributes": {"choices": [0.0001, 0.0002, 0.0005, 0.001]}}');
INSERT INTO "trial_params" VALUES(38,2,'schedule',1.0,'{"name": "CategoricalDistribution", "attributes": {"choices": ["cosine", "onecycle"]}}');
INSERT INTO "trial_params" VALUES(39,2,'label_smoothing',0.0,'{"name": "CategoricalDistribution", "attributes": {"choices": [0.0, 0.05, 0.1]}}');
INSERT INTO "trial_params" VALUES(40,2,'mixup',0.0,'{"name": "CategoricalDistribution", "attributes": {"choices": [0.0, 0.2]}}');
INSERT INTO "trial_params" VALUES(41,2,'tune_share',1.0,'{"name": "CategoricalDistribution", "attributes": {"choices": [0.35, 0.5, 0.65]}}');
INSERT INTO "trial_params" VALUES(42,2,'tune_learning_rate',0.05,'{"name": "FloatDistribution", "attributes": {"step": null, "low": 0.01, "high": 0.2, "log": true}}');
INSERT INTO "trial_params" VALUES(43,3,'width',4.0,'{"name": "IntDistribution", "attributes": {"log": false, "step": 2, "low": 4, "high": 16}}');
INSERT INTO "trial_params" VALUES(44,3,'growth_2',2.0,'{"name": "CategoricalDistribution", "attributes": {"choices": [1.0, 1.5, 2.0, 2.5]}}');
INSERT INTO "trial_params" VALUES(45,3,'growth_3',3.0,'{"name": "CategoricalDistribution", "attributes": {"choices": [1.0, 1.5, 2.0, 2.5]}}');
INSERT INTO "trial_params" VALUES(46,3,'blocks_1',1.0,'{"name": "CategoricalDistribution", "attributes": {"choices": [1, 2]}}');
INSERT INTO "trial_params" VALUES(47,3,'blocks_2',0.0,'{"name": "CategoricalDistribution", "attributes": {"choices": [1, 2]}}');
INSERT INTO "trial_params" VALUES(48,3,'blocks_3',0.0,'{"name": "CategoricalDistribution", "attributes": {"choices": [1, 2]}}');
INSERT INTO "trial_params" VALUES(49,3,'shortcut',0.0,'{"name": "CategoricalDistribution", "attributes": {"choices": ["projection", "pad"]}}');
INSERT INTO "trial_params" VALUES(50,3,'structured',3.0,'{"name": "CategoricalDistribution", "attributes": {"choices": [0.0, 0.1, 0.2, 0.3, 0.4]}}');
INSERT INTO "trial_params" VALUES(51,3,'sparsity',7.0,'{"name": "CategoricalDistribution", "attributes": {"choices": [0.0, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8]}}');
INSERT INTO "trial_params" VALUES(52,3,'activation_bits',2.0,'{"name": "CategoricalDistribution", "attributes": {"choices": [2, 3, 4, 5, 6, 8]}}');
INSERT INTO "trial_params" VALUES(53,3,'shift_1',0.0,'{"name": "CategoricalDistribution", "attributes": {"choices": [0, 1]}}');
INSERT INTO "trial_params" VALUES(54,3,'shift_3',0.0,'{"name": "CategoricalDistribution", "attributes": {"choices": [0, -1]}}');
INSERT INTO "trial_params" VALUES(55,3,'first_bits',1.0,'{"name": "CategoricalDistribution", "attributes": {"choices": [5, 8]}}');
INSERT INTO "trial_params" VALUES(56,3,'last_bits',0.0,'{"name": "CategoricalDistribution", "attributes": {"choices": [4, 8]}}');
INSERT INTO "trial_params" VALUES(57,3,'learning_rate',2.74323977199047108754e-01,'{"name": "FloatDistribution", "attributes": {"step": null, "low": 0.05, "high": 0.6, "log": true}}');
INSERT INTO "trial_params" VALUES(58,3,'weight_decay',0.0,'{"name": "CategoricalDistribution", "attributes": {"choices": [0.0001, 0.0002, 0.0005, 0.001]}}');
INSERT INTO "trial_params" VALUES(59,3,'schedule',1.0,'{"name": "CategoricalDistribution", "attributes": {"choices": ["cosine", "onecycle"]}}');
INSERT INTO "trial_params" VALUES(60,3,'label_smoothing',2.0,'{"name": "CategoricalDistribution", "attributes": {"choices": [0.0, 0.05, 0.1]}}');
INSERT INTO "trial_params" VALUES(61,3,'mixup',1.0,'{"name": "CategoricalDistribution", "attributes": {"choices": [0.0, 0.2]}}');
INSERT INTO "trial_params" VALUES(62,3,'tune_share',1.0,'{"name": "CategoricalDistribution", "attributes": {"choices": [0.35, 0.5, 0.65]}}');
INSERT INTO "trial_params" VALUES(63,3,'tune_learning_rate',8.65764286738472388371e-02,'{"name": "FloatDistribution", "attributes": {"step": null, "low": 0.01, "high": 0.2, "log": true}}');
INSERT INTO "trial_params" VALUES(64,4,'width',12.0,'{"name": "IntDistribution", "attributes": {"log": false, "step": 2, "low": 4, "high": 16}}');
INSERT INTO "trial_params" VALUES(65,4,'growth_2',1.0,'{"name": "CategoricalDistribution", "attributes": {"choices": [1.0, 1.5, 2.0, 2.5]}}');
INSERT INTO "trial_params" VALUES(66,4,'growth_3',3.0,'{"name": "CategoricalDistribution", "attributes": {"choices": [1.0, 1.5, 2.0, 2.5]}}');
INSERT INTO "trial_params" VALUES(67,4,'blocks_1',0.0,'{"name": "CategoricalDistribution", "attributes": {"choices": [1, 2]}}');
INSERT INTO "trial_params" VALUES(68,4,'blocks_2',0.0,'{"name": "CategoricalDistribution", "attributes": {"choices": [1, 2]}}');
INSERT INTO "trial_params" VALUES(69,4,'blocks_3',1.0,'{"name": "CategoricalDistribution", "attributes": {"choices": [1, 2]}}');
INSERT INTO "trial_params" VALUES(70,4,'shortcut',0.0,'{"name": "CategoricalDistribution", "attributes": {"choices": ["projection", "pad"]}}');
INSERT INTO "trial_params" VALUES(71,4,'structured',0.0,'{"name": "CategoricalDistribution", "attributes": {"choices": [0.0, 0.1, 0.2, 0.3, 0.4]}}');
INSERT INTO "trial_params" VALUES(72,4,'sparsity',0.0,'{"name": "CategoricalDistribution", "attributes": {"choices": [0.0, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8]}}');
INSERT INTO "trial_params" VALUES(73,4,'activation_bits',3.0,'{"name": "CategoricalDistribution", "attributes": {"choices": [2, 3, 4, 5, 6, 8]}}');
INSERT INTO "trial_params" VALUES(74,4,'shift_1',1.0,'{"name": "CategoricalDistribution", "attributes": {"choices": [0, 1]}}');
INSERT INTO "trial_params" VALUES(75,4,'shift_3',1.0,'{"name": "CategoricalDistribution", "attributes": {"choices": [0, -1]}}');
INSERT INTO "trial_params" VALUES(76,4,'first_bits',0.0,'{"name": "CategoricalDistribution", "attributes": {"choices": [5, 8]}}');
INSERT INTO "trial_params" VALUES(77,4,'last_bits',1.0,'{"name": "CategoricalDistribution", "attributes": {"choices": [4, 8]}}');
INSERT INTO "trial_params" VALUES(78,4,'learning_rate',5.02300189239139049934e-02,'{"name": "FloatDistribution", "attributes": {"step": null, "low": 0.05, "high": 0.6, "log": true}}');
INSERT INTO "trial_params" VALUES(79,4,'weight_decay',2.0,'{"name": "CategoricalDistribution", "attributes": {"choices": [0.0001, 0.0002, 0.0005, 0.001]}}');
INSERT INTO "trial_params" VALUES(80,4,'schedule',1.0,'{"name": "CategoricalDistribution", "attributes": {"choices": ["cosine", "onecycle"]}}');
INSERT INTO "trial_params" VALUES(81,4,'label_smoothing',1.0,'{"name": "CategoricalDistribution", "attributes": {"choices": [0.0, 0.05, 0.1]}}');
INSERT INTO "trial_params" VALUES(82,4,'mixup',1.0,'{"name": "CategoricalDistribution", "attributes": {"choices": [0.0, 0.2]}}');
INSERT INTO "trial_params" VALUES(83,4,'tune_share',1.0,'{"name": "CategoricalDistribution", "attributes": {"choices": [0.35, 0.5, 0.65]}}');
INSERT INTO "trial_params" VALUES(84,4,'tune_learning_rate',1.02539287827265193642e-01,'{"name": "FloatDistribution", "attributes": {"step": null, "low": 0.01, "high": 0.2, "log": true}}');
INSERT INTO "trial_params" VALUES(85,5,'width',12.0,'{"name": "IntDistribution", "attributes": {"log": false, "step": 2, "low": 4, "high": 16}}');
INSERT INTO "trial_params" VALUES(86,5,'growth_2',1.0,'{"name": "CategoricalDistribution", "attributes": {"choices": [1.0, 1.5, 2.0, 2.5]}}');
INSERT INTO "trial_params" VALUES(87,5,'growth_3',3.0,'{"name": "CategoricalDistribution", "attributes": {"choices": [1.0, 1.5, 2.0, 2.5]}}');
INSERT INTO "trial_params" VALUES(88,5,'blocks_1',0.0,'{"name": "CategoricalDistribution", "attributes": {"choices": [1, 2]}}');
INSERT INTO "trial_params" VALUES(89,5,'blocks_2',0.0,'{"name": "CategoricalDistribution", "attributes": {"choices": [1, 2]}}');
INSERT INTO "trial_params" VALUES(90,5,'blocks_3',1.0,'{"name": "CategoricalDistribution", "attributes": {"choices": [1, 2]}}');
INSERT INTO "trial_params" VALUES(91,5,'shortcut',0.0,'{"name": "CategoricalDistribution", "attributes": {"choices": ["projection", "pad"]}}');
INSERT INTO "trial_params" VALUES(92,5,'structured',0.0,'{"name": "CategoricalDistribution", "attributes": {"choices": [0.0, 0.1, 0.2, 0.3, 0.4]}}');
INSERT INTO "trial_params" VALUES(93,5,'sparsity',0.0,'{"name": "CategoricalDistribution", "attributes": {"choices": [0.0, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8]}}');
INSERT INTO "trial_params" VALUES(94,5,'activation_bits',3.0,'{"name": "CategoricalDistribution", "attributes": {"choices": [2, 3, 4, 5, 6, 8]}}');
INSERT INTO "trial_params" VALUES(95,5,'shift_1',1.0,'{"name": "CategoricalDistribution", "attributes": {"choices": [0, 1]}}');
INSERT INTO "trial_params" VALUES(96,5,'shift_3',1.0,'{"name": "CategoricalDistribution", "attributes": {"choices": [0, -1]}}');
INSERT INTO "trial_params" VALUES(97,5,'first_bits',0.0,'{"name": "CategoricalDistribution", "attributes": {"choices": [5, 8]}}');
INSERT INTO "trial_params" VALUES(98,5,'last_bits',1.0,'{"name": "CategoricalDistribution", "attributes": {"choices": [4, 8]}}');
INSERT INTO "trial_params" VALUES(99,5,'learning_rate',5.02300189239139049934e-02,'{"name": "FloatDistribution", "attributes": {"step": null, "low": 0.05, "high": 0.6, "log": true}}');
INSERT INTO "trial_params" VALUES(100,5,'weight_decay',2.0,'{"name": "CategoricalDistribution", "attributes": {"choices": [0.0001, 0.0002, 0.0005, 0.001]}}');
INSERT INTO "trial_params" VALUES(101,5,'schedule',1.0,'{"name": "CategoricalDistribution", "attributes": {"choices": ["cosine", "onecycle"]}}');
INSERT INTO "trial_params" VALUES(102,5,'label_smoothing',1.0,'{"name": "CategoricalDistribution", "attributes": {"choices": [0.0, 0.05, 0.1]}}');
INSERT INTO "trial_params" VALUES(103,5,'mixup',1.0,'{"name": "CategoricalDistribution", "attributes": {"choices": [0.0, 0.2]}}');
INSERT INTO "trial_params" VALUES(104,5,'tune_share',1.0,'{"name": "CategoricalDistribution", "attributes": {"choices": [0.35, 0.5, 0.65]}}');
INSERT INTO "trial_params" VALUES(105,5,'tune_learning_rate',1.02539287827265193642e-01,'{"name": "FloatDistribution", "attributes": {"step": null, "low": 0.01, "high": 0.2, "log": true}}');
INSERT INTO "trial_params" VALUES(106,6,'width',4.0,'{"name": "IntDistribution", "attributes": {"log": false, "step": 2, "low": 4, "high": 16}}');
INSERT INTO "trial_params" VALUES(107,6,'growth_2',2.0,'{"name": "CategoricalDistribution", "attributes": {"choices": [1.0, 1.5, 2.0, 2.5]}}');
INSERT INTO "trial_params" VALUES(108,6,'growth_3',3.0,'{"name": "CategoricalDistribution", "attributes": {"choices": [1.0, 1.5, 2.0, 2.5]}}');
INSERT INTO "trial_params" VALUES(109,6,'blocks_1',1.0,'{"name": "CategoricalDistribution", "attributes": {"choices": [1, 2]}}');
INSERT INTO "trial_params" VALUES(110,6,'blocks_2',0.0,'{"name": "CategoricalDistribution", "attributes": {"choices": [1, 2]}}');
INSERT INTO "trial_params" VALUES(111,6,'blocks_3',0.0,'{"name": "CategoricalDistribution", "attributes": {"choices": [1, 2]}}');
INSERT INTO "trial_params" VALUES(112,6,'shortcut',0.0,'{"name": "CategoricalDistribution", "attributes": {"choices": ["projection", "pad"]}}');
INSERT INTO "trial_params" VALUES(113,6,'structured',3.0,'{"name": "CategoricalDistribution", "attributes": {"choices": [0.0, 0.1, 0.2, 0.3, 0.4]}}');
INSERT INTO "trial_params" VALUES(114,6,'sparsity',7.0,'{"name": "CategoricalDistribution", "attributes": {"choices": [0.0, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8]}}');
INSERT INTO "trial_params" VALUES(115,6,'activation_bits',2.0,'{"name": "CategoricalDistribution", "attributes": {"choices": [2, 3, 4, 5, 6, 8]}}');
INSERT INTO "trial_params" VALUES(116,6,'shift_1',0.0,'{"name": "CategoricalDistribution", "attributes": {"choices": [0, 1]}}');
INSERT INTO "trial_params" VALUES(117,6,'shift_3',0.0,'{"name": "CategoricalDistribution", "attributes": {"choices": [0, -1]}}');
INSERT INTO "trial_params" VALUES(118,6,'first_bits',1.0,'{"name": "CategoricalDistribution", "attributes": {"choices": [5, 8]}}');
INSERT INTO "trial_params" VALUES(119,6,'last_bits',0.0,'{"name": "CategoricalDistribution", "attributes": {"choices": [4, 8]}}');
INSERT INTO "trial_params" VALUES(120,6,'learning_rate',2.74323977199047108754e-01,'{"name": "FloatDistribution", "attributes": {"step": null, "low": 0.05, "high": 0.6, "log": true}}');
INSERT INTO "trial_params" VALUES(121,6,'weight_decay',0.0,'{"name": "CategoricalDistribution", "attributes": {"choices": [0.0001, 0.0002, 0.0005, 0.001]}}');
INSERT INTO "trial_params" VALUES(122,6,'schedule',1.0,'{"name": "CategoricalDistribution", "attributes": {"choices": ["cosine", "onecycle"]}}');
INSERT INTO "trial_params" VALUES(123,6,'label_smoothing',2.0,'{"name": "CategoricalDistribution", "attributes": {"choices": [0.0, 0.05, 0.1]}}');
INSERT INTO "trial_params" VALUES(124,6,'mixup',1.0,'{"name": "CategoricalDistribution", "attributes": {"choices": [0.0, 0.2]}}');
INSERT INTO "trial_params" VALUES(125,6,'tune_share',1.0,'{"name": "CategoricalDistribution", "attributes": {"choices": [0.35, 0.5, 0.65]}}');
INSERT INTO "trial_params" VALUES(126,6,'tune_learning_rate',8.65764286738472388371e-02,'{"name": "FloatDistribution", "attributes": {"step": null, "low": 0.01, "high": 0.2, "log": true}}');
INSERT INTO "trial_params" VALUES(127,7,'width',16.0,'{"name": "IntDistribution", "attributes": {"log": false, "step": 2, "low": 4, "high": 16}}');
INSERT INTO "trial_params" VALUES(128,7,'growth_2',2.0,'{"name": "CategoricalDistribution", "attributes": {"choices": [1.0, 1.5, 2.0, 2.5]}}');
INSERT INTO "trial_params" VALUES(129,7,'growth_3',2.0,'{"name": "CategoricalDistribution", "attributes": {"choices": [1.0, 1.5, 2.0, 2.5]}}');
INSERT INTO "trial_params" VALUES(130,7,'blocks_1',0.0,'{"name": "CategoricalDistribution", "attributes": {"choices": [1, 2]}}');
INSERT INTO "trial_params" VALUES(131,7,'blocks_2',0.0,'{"name": "CategoricalDistribution", "attributes": {"choices": [1, 2]}}');
INSERT INTO "trial_params" VALUES(132,7,'blocks_3',0.0,'{"name": "CategoricalDistribution", "attributes": {"choices": [1, 2]}}');
INSERT INTO "trial_params" VALUES(133,7,'shortcut',0.0,'{"name": "CategoricalDistribution", "attributes": {"choices": ["projection", "pad"]}}');
INSERT INTO "trial_params" VALUES(134,7,'structured',0.0,'{"name": "CategoricalDistribution", "attributes": {"choices": [0.0, 0.1, 0.2, 0.3, 0.4]}}');
INSERT INTO "trial_params" VALUES(135,7,'sparsity',3.0,'{"name": "CategoricalDistribution", "attributes": {"choices": [0.0, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8]}}');
INSERT INTO "trial_params" VALUES(136,7,'activation_bits',2.0,'{"name": "CategoricalDistribution", "attributes": {"choices": [2, 3, 4, 5, 6, 8]}}');
INSERT INTO "trial_params" VALUES(137,7,'shift_1',0.0,'{"name": "CategoricalDistribution", "attributes": {"choices": [0, 1]}}');
INSERT INTO "trial_params" VALUES(138,7,'shift_3',0.0,'{"name": "CategoricalDistribution", "attributes": {"choices": [0, -1]}}');
INSERT INTO "trial_params" VALUES(139,7,'first_bits',1.0,'{"name": "CategoricalDistribution", "attributes": {"choices": [5, 8]}}');
INSERT INTO "trial_params" VALUES(140,7,'last_bits',1.0,'{"name": "CategoricalDistribution", "attributes": {"choices": [4, 8]}}');
INSERT INTO "trial_params" VALUES(141,7,'learning_rate',0.2,'{"name": "FloatDistribution", "attributes": {"step": null, "low": 0.05, "high": 0.6, "log": true}}');
INSERT INTO "trial_params" VALUES(142,7,'weight_decay',2.0,'{"name": "CategoricalDistribution", "attributes": {"choices": [0.0001, 0.0002, 0.0005, 0.001]}}');
INSERT INTO "trial_params" VALUES(143,7,'schedule',1.0,'{"name": "CategoricalDistribution", "attributes": {"choices": ["cosine", "onecycle"]}}');
INSERT INTO "trial_params" VALUES(144,7,'label_smoothing',0.0,'{"name": "CategoricalDistribution", "attributes": {"choices": [0.0, 0.05, 0.1]}}');
INSERT INTO "trial_params" VALUES(145,7,'mixup',0.0,'{"name": "CategoricalDistribution", "attributes": {"choices": [0.0, 0.2]}}');
INSERT INTO "trial_params" VALUES(146,7,'tune_share',1.0,'{"name": "CategoricalDistribution", "attributes": {"choices": [0.35, 0.5, 0.65]}}');
INSERT INTO "trial_params" VALUES(147,7,'tune_learning_rate',0.05,'{"name": "FloatDistribution", "attributes": {"step": null, "low": 0.01, "high": 0.2, "log": true}}');
INSERT INTO "trial_params" VALUES(148,8,'width',16.0,'{"name": "IntDistribution", "attributes": {"log": false, "step": 2, "low": 4, "high": 16}}');
INSERT INTO "trial_params" VALUES(149,8,'growth_2',2.0,'{"name": "CategoricalDistribution", "attributes": {"choices": [1.0, 1.5, 2.0, 2.5]}}');
INSERT INTO "trial_params" VALUES(150,8,'growth_3',2.0,'{"name": "CategoricalDistribution", "attributes": {"choices": [1.0, 1.5, 2.0, 2.5]}}');
INSERT INTO "trial_params" VALUES(151,8,'blocks_1',0.0,'{"name": "CategoricalDistribution", "attributes": {"choices": [1, 2]}}');
INSERT INTO "trial_params" VALUES(152,8,'blocks_2',0.0,'{"name": "CategoricalDistribution", "attributes": {"choices": [1, 2]}}');
INSERT INTO "trial_params" VALUES(153,8,'blocks_3',0.0,'{"name": "CategoricalDistribution", "attributes": {"choices": [1, 2]}}');
INSERT INTO "trial_params" VALUES(154,8,'shortcut',0.0,'{"name": "CategoricalDistribution", "attributes": {"choices": ["projection", "pad"]}}');
INSERT INTO "trial_params" VALUES(155,8,'structured',0.0,'{"name": "CategoricalDistribution", "attributes": {"choices": [0.0, 0.1, 0.2, 0.3, 0.4]}}');
INSERT INTO "trial_params" VALUES(156,8,'sparsity',3.0,'{"name": "CategoricalDistribution", "attributes": {"choices": [0.0, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8]}}');
INSERT INTO "trial_params" VALUES(157,8,'activation_bits',2.0,'{"name": "CategoricalDistribution", "attributes": {"choices": [2, 3, 4, 5, 6, 8]}}');
INSERT INTO "trial_params" VALUES(158,8,'shift_1',0.0,'{"name": "CategoricalDistribution", "attributes": {"choices": [0, 1]}}');
INSERT INTO "trial_params" VALUES(159,8,'shift_3',0.0,'{"name": "CategoricalDistribution", "attributes": {"choices": [0, -1]}}');
INSERT INTO "trial_params" VALUES(160,8,'first_bits',1.0,'{"name": "CategoricalDistribution", "attributes": {"choices": [5, 8]}}');
INSERT INTO "trial_params" VALUES(161,8,'last_bits',1.0,'{"name": "CategoricalDistribution", "attributes": {"choices": [4, 8]}}');
INSERT INTO "trial_params" VALUES(162,8,'learning_rate',0.2,'{"name": "FloatDistribution", "attributes": {"step": null, "low": 0.05, "high": 0.6, "log": true}}');
INSERT INTO "trial_params" VALUES(163,8,'weight_decay',2.0,'{"name": "CategoricalDistribution", "attributes": {"choices": [0.0001, 0.0002, 0.0005, 0.001]}}');
INSERT INTO "trial_params" VALUES(164,8,'schedule',1.0,'{"name": "CategoricalDistribution", "attributes": {"choices": ["cosine", "onecycle"]}}');
INSERT INTO "trial_params" VALUES(165,8,'label_smoothing',0.0,'{"name": "CategoricalDistribution", "attributes": {"choices": [0.0, 0.05, 0.1]}}');
INSERT INTO "trial_params" VALUES(166,8,'mixup',0.0,'{"name": "CategoricalDistribution", "attributes": {"choices": [0.0, 0.2]}}');
INSERT INTO "trial_params" VALUES(167,8,'tune_share',1.0,'{"name": "CategoricalDistribution", "attributes": {"choices": [0.35, 0.5, 0.65]}}');
INSERT INTO "trial_params" VALUES(168,8,'tune_learning_rate',0.05,'{"name": "FloatDistribution", "attributes": {"step": null, "low": 0.01, "high": 0.2, "log": true}}');
INSERT INTO "trial_params" VALUES(169,9,'width',16.0,'{"name": "IntDistribution", "attributes": {"log": false, "step": 2, "low": 4, "high": 16}}');
INSERT INTO "trial_params" VALUES(170,9,'growth_2',2.0,'{"name": "CategoricalDistribution", "attributes": {"choices": [1.0, 1.5, 2.0, 2.5]}}');
INSERT INTO "trial_params" VALUES(171,9,'growth_3',2.0,'{"name": "CategoricalDistribution", "attributes": {"choices": [1.0, 1.5, 2.0, 2.5]}}');
INSERT INTO "trial_params" VALUES(172,9,'blocks_1',0.0,'{"name": "CategoricalDistribution", "attributes": {"choices": [1, 2]}}');
INSERT INTO "trial_params" VALUES(173,9,'blocks_2',0.0,'{"name": "CategoricalDistribution", "attributes": {"choices": [1, 2]}}');
INSERT INTO "trial_params" VALUES(174,9,'blocks_3',0.0,'{"name": "CategoricalDistribution", "attributes": {"choices": [1, 2]}}');
INSERT INTO "trial_params" VALUES(175,9,'shortcut',0.0,'{"name": "CategoricalDistribution", "attributes": {"choices": ["projection", "pad"]}}');
INSERT INTO "trial_params" VALUES(176,9,'structured',0.0,'{"name": "CategoricalDistribution", "attributes": {"choices": [0.0, 0.1, 0.2, 0.3, 0.4]}}');
INSERT INTO "trial_params" VALUES(177,9,'sparsity',3.0,'{"name": "CategoricalDistribution", "attributes": {"choices": [0.0, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8]}}');
INSERT INTO "trial_params" VALUES(178,9,'activation_bits',2.0,'{"name": "CategoricalDistribution", "attributes": {"choices": [2, 3, 4, 5, 6, 8]}}');
INSERT INTO "trial_params" VALUES(179,9,'shift_1',0.0,'{"name": "CategoricalDistribution", "attributes": {"choices": [0, 1]}}');
INSERT INTO "trial_params" VALUES(180,9,'shift_3',0.0,'{"name": "CategoricalDistribution", "attributes": {"choices": [0, -1]}}');
INSERT INTO "trial_params" VALUES(181,9,'first_bits',1.0,'{"name": "CategoricalDistribution", "attributes": {"choices": [5, 8]}}');
INSERT INTO "trial_params" VALUES(182,9,'last_bits',1.0,'{"name": "CategoricalDistribution", "attributes": {"choices": [4, 8]}}');
INSERT INTO "trial_params" VALUES(183,9,'learning_rate',0.2,'{"name": "FloatDistribution", "attributes": {"step": null, "low": 0.05, "high": 0.6, "log": true}}');
INSERT INTO "trial_params" VALUES(184,9,'weight_decay',2.0,'{"name": "CategoricalDistribution", "attributes": {"choices": [0.0001, 0.0002, 0.0005, 0.001]}}');
INSERT INTO "trial_params" VALUES(185,9,'schedule',1.0,'{"name": "CategoricalDistribution", "attributes": {"choices": ["cosine", "onecycle"]}}');
INSERT INTO "trial_params" VALUES(186,9,'label_smoothing',0.0,'{"name": "CategoricalDistribution", "attributes": {"choices": [0.0, 0.05, 0.1]}}');
INSERT INTO "trial_params" VALUES(187,9,'mixup',0.0,'{"name": "CategoricalDistribution", "attributes": {"choices": [0.0, 0.2]}}');
INSERT INTO "trial_params" VALUES(188,9,'tune_share',1.0,'{"name": "CategoricalDistribution", "attributes": {"choices": [0.35, 0.5, 0.65]}}');
INSERT INTO "trial_params" VALUES(189,9,'tune_learning_rate',0.05,'{"name": "FloatDistribution", "attributes": {"step": null, "low": 0.01, "high": 0.2, "log": true}}');
INSERT INTO "trial_params" VALUES(190,10,'width',16.0,'{"name": "IntDistribution", "attributes": {"log": false, "step": 2, "low": 4, "high": 16}}');
INSERT INTO "trial_params" VALUES(191,10,'growth_2',2.0,'{"name": "CategoricalDistribution", "attributes": {"choices": [1.0, 1.5, 2.0, 2.5]}}');
INSERT INTO "trial_params" VALUES(192,10,'growth_3',2.0,'{"name": "CategoricalDistribution", "attributes": {"choices": [1.0, 1.5, 2.0, 2.5]}}');
INSERT INTO "trial_params" VALUES(193,10,'blocks_1',0.0,'{"name": "CategoricalDistribution", "attributes": {"choices": [1, 2]}}');
INSERT INTO "trial_params" VALUES(194,10,'blocks_2',0.0,'{"name": "CategoricalDistribution", "attributes": {"choices": [1, 2]}}');
INSERT INTO "trial_params" VALUES(195,10,'blocks_3',0.0,'{"name": "CategoricalDistribution", "attributes": {"choices": [1, 2]}}');
INSERT INTO "trial_params" VALUES(196,10,'shortcut',0.0,'{"name": "CategoricalDistribution", "attributes": {"choices": ["projection", "pad"]}}');
INSERT INTO "trial_params" VALUES(197,10,'structured',0.0,'{"name": "CategoricalDistribution", "attributes": {"choices": [0.0, 0.1, 0.2, 0.3, 0.4]}}');
INSERT INTO "trial_params" VALUES(198,10,'sparsity',3.0,'{"name": "CategoricalDistribution", "attributes": {"choices": [0.0, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8]}}');
INSERT INTO "trial_params" VALUES(199,10,'activation_bits',2.0,'{"name": "CategoricalDistribution", "attributes": {"choices": [2, 3, 4, 5, 6, 8]}}');
INSERT INTO "trial_params" VALUES(200,10,'shift_1',0.0,'{"name": "CategoricalDistribution", "attributes": {"choices": [0, 1]}}');
INSERT INTO "trial_params" VALUES(201,10,'shift_3',0.0,'{"name": "CategoricalDistribution", "attributes": {"choices": [0, -1]}}');
INSERT INTO "trial_params" VALUES(202,10,'first_bits',1.0,'{"name": "CategoricalDistribution", "attributes": {"choices": [5, 8]}}');
INSERT INTO "trial_params" VALUES(203,10,'last_bits',1.0,'{"name": "CategoricalDistribution", "attributes": {"choices": [4, 8]}}');
INSERT INTO "trial_params" VALUES(204,10,'learning_rate',0.2,'{"name": "FloatDistribution", "attributes": {"step": null, "low": 0.05, "high": 0.6, "log": true}}');
INSERT INTO "trial_params" VALUES(205,10,'weight_decay',2.0,'{"name": "CategoricalDistribution", "attributes": {"choices": [0.0001, 0.0002, 0.0005, 0.001]}}');
INSERT INTO "trial_params" VALUES(206,10,'schedule',1.0,'{"name": "CategoricalDistribution", "attributes": {"choices": ["cosine", "onecycle"]}}');
INSERT INTO "trial_params" VALUES(207,10,'label_smoothing',0.0,'{"name": "CategoricalDistribution", "attributes": {"choices": [0.0, 0.05, 0.1]}}');
INSERT INTO "trial_params" VALUES(208,10,'mixup',0.0,'{"name": "CategoricalDistribution", "attributes": {"choices": [0.0, 0.2]}}');
INSERT INTO "trial_params" VALUES(209,10,'tune_share',1.0,'{"name": "CategoricalDistribution", "attributes": {"choices": [0.35, 0.5, 0.65]}}');
INSERT INTO "trial_params" VALUES(210,10,'tune_learning_rate',0.05,'{"name": "FloatDistribution", "attributes": {"step": null, "low": 0.01, "high": 0.2, "log": true}}');
CREATE TABLE trial_system_attributes (
	trial_system_attribute_id INTEGER NOT NULL, 
	trial_id INTEGER, 
	"key" VARCHAR(512), 
	value_json TEXT, 
	PRIMARY KEY (trial_system_attribute_id), 
	UNIQUE (trial_id, "key"), 
	FOREIGN KEY(trial_id) REFERENCES trials (trial_id)
);
INSERT INTO "trial_system_attributes" VALUES(1,1,'fixed_params','{"width": 16, "growth_2": 2.0, "growth_3": 2.0, "blocks_1": 1, "blocks_2": 1, "blocks_3": 1, "shortcut": "projection", "structured": 0.0, "sparsity": 0.4, "activation_bits": 4, "shift_1": 0, "shift_3": 0, "first_bits": 8, "last_bits": 8, "learning_rate": 0.2, "weight_decay": 0.0005, "schedule": "onecycle", "label_smoothing": 0.0, "mixup": 0.0, "tune_share": 0.5, "tune_learning_rate": 0.05}');
INSERT INTO "trial_system_attributes" VALUES(2,1,'constraints:accuracy','0.07439024390243898');
INSERT INTO "trial_system_attributes" VALUES(3,2,'fixed_params','{"width": 16, "growth_2": 2.0, "growth_3": 2.0, "blocks_1": 1, "blocks_2": 1, "blocks_3": 1, "shortcut": "projection", "structured": 0.0, "sparsity": 0.4, "activation_bits": 4, "shift_1": 0, "shift_3": 0, "first_bits": 8, "last_bits": 8, "learning_rate": 0.2, "weight_decay": 0.0005, "schedule": "onecycle", "label_smoothing": 0.0, "mixup": 0.0, "tune_share": 0.5, "tune_learning_rate": 0.05}');
INSERT INTO "trial_system_attributes" VALUES(4,2,'constraints:accuracy','0.01846689895470388');
INSERT INTO "trial_system_attributes" VALUES(5,3,'constraints:accuracy','0.2554006968641116');
INSERT INTO "trial_system_attributes" VALUES(6,4,'constraints:accuracy','0.19078238834336403');
INSERT INTO "trial_system_attributes" VALUES(7,5,'fixed_params','{"width": 12, "growth_2": 1.5, "growth_3": 2.5, "blocks_1": 1, "blocks_2": 1, "blocks_3": 2, "shortcut": "projection", "structured": 0.0, "sparsity": 0.0, "activation_bits": 5, "shift_1": 1, "shift_3": -1, "first_bits": 5, "last_bits": 8, "learning_rate": 0.050230018923913905, "weight_decay": 0.0005, "schedule": "onecycle", "label_smoothing": 0.05, "mixup": 0.2, "tune_share": 0.5, "tune_learning_rate": 0.1025392878272652}');
INSERT INTO "trial_system_attributes" VALUES(8,5,'constraints:accuracy','0.3494773519163763');
INSERT INTO "trial_system_attributes" VALUES(9,6,'fixed_params','{"width": 4, "growth_2": 2.0, "growth_3": 2.5, "blocks_1": 2, "blocks_2": 1, "blocks_3": 1, "shortcut": "projection", "structured": 0.3, "sparsity": 0.8, "activation_bits": 4, "shift_1": 0, "shift_3": 0, "first_bits": 8, "last_bits": 4, "learning_rate": 0.2743239771990471, "weight_decay": 0.0001, "schedule": "onecycle", "label_smoothing": 0.1, "mixup": 0.2, "tune_share": 0.5, "tune_learning_rate": 0.08657642867384724}');
INSERT INTO "trial_system_attributes" VALUES(10,6,'constraints:accuracy','0.6909407665505226');
INSERT INTO "trial_system_attributes" VALUES(11,7,'fixed_params','{"width": 16, "growth_2": 2.0, "growth_3": 2.0, "blocks_1": 1, "blocks_2": 1, "blocks_3": 1, "shortcut": "projection", "structured": 0.0, "sparsity": 0.4, "activation_bits": 4, "shift_1": 0, "shift_3": 0, "first_bits": 8, "last_bits": 8, "learning_rate": 0.2, "weight_decay": 0.0005, "schedule": "onecycle", "label_smoothing": 0.0, "mixup": 0.0, "tune_share": 0.5, "tune_learning_rate": 0.05}');
INSERT INTO "trial_system_attributes" VALUES(12,8,'fixed_params','{"width": 16, "growth_2": 2.0, "growth_3": 2.0, "blocks_1": 1, "blocks_2": 1, "blocks_3": 1, "shortcut": "projection", "structured": 0.0, "sparsity": 0.4, "activation_bits": 4, "shift_1": 0, "shift_3": 0, "first_bits": 8, "last_bits": 8, "learning_rate": 0.2, "weight_decay": 0.0005, "schedule": "onecycle", "label_smoothing": 0.0, "mixup": 0.0, "tune_share": 0.5, "tune_learning_rate": 0.05}');
INSERT INTO "trial_system_attributes" VALUES(13,7,'constraints:accuracy','0.035164232791631056');
INSERT INTO "trial_system_attributes" VALUES(14,8,'constraints:accuracy','0.049996943342420774');
INSERT INTO "trial_system_attributes" VALUES(15,9,'fixed_params','{"width": 16, "growth_2": 2.0, "growth_3": 2.0, "blocks_1": 1, "blocks_2": 1, "blocks_3": 1, "shortcut": "projection", "structured": 0.0, "sparsity": 0.4, "activation_bits": 4, "shift_1": 0, "shift_3": 0, "first_bits": 8, "last_bits": 8, "learning_rate": 0.2, "weight_decay": 0.0005, "schedule": "onecycle", "label_smoothing": 0.0, "mixup": 0.0, "tune_share": 0.5, "tune_learning_rate": 0.05}');
INSERT INTO "trial_system_attributes" VALUES(16,10,'fixed_params','{"width": 16, "growth_2": 2.0, "growth_3": 2.0, "blocks_1": 1, "blocks_2": 1, "blocks_3": 1, "shortcut": "projection", "structured": 0.0, "sparsity": 0.4, "activation_bits": 4, "shift_1": 0, "shift_3": 0, "first_bits": 8, "last_bits": 8, "learning_rate": 0.2, "weight_decay": 0.0005, "schedule": "onecycle", "label_smoothing": 0.0, "mixup": 0.0, "tune_share": 0.5, "tune_learning_rate": 0.05}');
INSERT INTO "trial_system_attributes" VALUES(17,9,'constraints:accuracy','0.035164232791631056');
INSERT INTO "trial_system_attributes" VALUES(18,10,'constraints:accuracy','0.06107137362695003');
CREATE TABLE trial_user_attributes (
	trial_user_attribute_id INTEGER NOT NULL, 
	trial_id INTEGER, 
	"key" VARCHAR(512), 
	value_json TEXT, 
	PRIMARY KEY (trial_user_attribute_id), 
	UNIQUE (trial_id, "key"), 
	FOREIGN KEY(trial_id) REFERENCES trials (trial_id)
);
INSERT INTO "trial_user_attributes" VALUES(1,1,'todo','{"candidate": "{\"architecture\": {\"family\": \"resnet\", \"options\": {\"depths\": [1, 1, 1], \"shortcut\": \"projection\", \"strides\": [1, 2, 2], \"widths\": [16, 32, 64]}}, \"bits\": {\"activations\": 4, \"layers\": {\"fc\": [8, 8], \"stem\": [8, 8]}, \"numbers\": 8, \"per_channel\": true, \"weights\": 3}, \"seed\": 1, \"structured\": 0.0, \"train\": {\"batch_size\": 64, \"clip_norm\": 0.0, \"crop\": 1, \"cutmix\": 0.0, \"cutout\": 0, \"distillation\": 0.0, \"ema_decay\": 0.0, \"epochs\": 0.5, \"flip\": false, \"label_smoothing\": 0.0, \"learning_rate\": 0.2, \"mixup\": 0.0, \"momentum\": 0.9, \"optimiser\": \"sgd\", \"schedule\": \"onecycle\", \"taught_epochs\": 0, \"temperature\": 4.0, \"warmup_epochs\": 0.1, \"weight_decay\": 0.0005}, \"tune\": {\"batch_size\": 64, \"clip_norm\": 0.0, \"crop\": 1, \"cutmix\": 0.0, \"cutout\": 0, \"distillation\": 0.0, \"ema_decay\": 0.0, \"epochs\": 0.5, \"flip\": false, \"label_smoothing\": 0.0, \"learning_rate\": 0.05, \"mixup\": 0.0, \"momentum\": 0.9, \"optimiser\": \"sgd\", \"schedule\": \"onecycle\", \"taught_epochs\": 0, \"temperature\": 4.0, \"warmup_epochs\": 0.0, \"weight_decay\": 0.0005}, \"unstructured\": 0.4}", "stage": "explore", "rung": 0, "retries": 0}');
INSERT INTO "trial_user_attributes" VALUES(2,1,'work','{"key": "bb40de409ed9e818", "candidate": "{\"architecture\": {\"family\": \"resnet\", \"options\": {\"depths\": [1, 1, 1], \"shortcut\": \"projection\", \"strides\": [1, 2, 2], \"widths\": [16, 32, 64]}}, \"bits\": {\"activations\": 4, \"layers\": {\"fc\": [8, 8], \"stem\": [8, 8]}, \"numbers\": 8, \"per_channel\": true, \"weights\": 3}, \"seed\": 1, \"structured\": 0.0, \"train\": {\"batch_size\": 64, \"clip_norm\": 0.0, \"crop\": 1, \"cutmix\": 0.0, \"cutout\": 0, \"distillation\": 0.0, \"ema_decay\": 0.0, \"epochs\": 0.5, \"flip\": false, \"label_smoothing\": 0.0, \"learning_rate\": 0.2, \"mixup\": 0.0, \"momentum\": 0.9, \"optimiser\": \"sgd\", \"schedule\": \"onecycle\", \"taught_epochs\": 0, \"temperature\": 4.0, \"warmup_epochs\": 0.1, \"weight_decay\": 0.0005}, \"tune\": {\"batch_size\": 64, \"clip_norm\": 0.0, \"crop\": 1, \"cutmix\": 0.0, \"cutout\": 0, \"distillation\": 0.0, \"ema_decay\": 0.0, \"epochs\": 0.5, \"flip\": false, \"label_smoothing\": 0.0, \"learning_rate\": 0.05, \"mixup\": 0.0, \"momentum\": 0.9, \"optimiser\": \"sgd\", \"schedule\": \"onecycle\", \"taught_epochs\": 0, \"temperature\": 4.0, \"warmup_epochs\": 0.0, \"weight_decay\": 0.0005}, \"unstructured\": 0.4}", "stage": "explore", "rung": 0, "worker": "machine:23721", "retries": 0, "estimate": {"params": 0.11898551842992, "ops": 0.25322715842414084, "macs": 763520, "weights": 77072}}');
INSERT INTO "trial_user_attributes" VALUES(3,1,'result','"{\"correct\": 210, \"total\": 287, \"price\": {\"params\": 0.11898551842992, \"ops\": 0.25322715842414084, \"macs\": 763520, \"weights\": 77072}, \"curve\": [[0.5, 0.7317073170731707]], \"images\": 575, \"seconds\": 0.195, \"model\": null}"');
INSERT INTO "trial_user_attributes" VALUES(4,2,'todo','{"candidate": "{\"architecture\": {\"family\": \"resnet\", \"options\": {\"depths\": [1, 1, 1], \"shortcut\": \"projection\", \"strides\": [1, 2, 2], \"widths\": [16, 32, 64]}}, \"bits\": {\"activations\": 4, \"layers\": {\"fc\": [8, 8], \"stem\": [8, 8]}, \"numbers\": 8, \"per_channel\": true, \"weights\": 3}, \"seed\": 1, \"structured\": 0.0, \"train\": {\"batch_size\": 64, \"clip_norm\": 0.0, \"crop\": 1, \"cutmix\": 0.0, \"cutout\": 0, \"distillation\": 0.0, \"ema_decay\": 0.0, \"epochs\": 0.5, \"flip\": false, \"label_smoothing\": 0.0, \"learning_rate\": 0.2, \"mixup\": 0.0, \"momentum\": 0.9, \"optimiser\": \"sgd\", \"schedule\": \"onecycle\", \"taught_epochs\": 0, \"temperature\": 4.0, \"warmup_epochs\": 0.1, \"weight_decay\": 0.0005}, \"tune\": {\"batch_size\": 64, \"clip_norm\": 0.0, \"crop\": 1, \"cutmix\": 0.0, \"cutout\": 0, \"distillation\": 0.0, \"ema_decay\": 0.0, \"epochs\": 0.5, \"flip\": false, \"label_smoothing\": 0.0, \"learning_rate\": 0.05, \"mixup\": 0.0, \"momentum\": 0.9, \"optimiser\": \"sgd\", \"schedule\": \"onecycle\", \"taught_epochs\": 0, \"temperature\": 4.0, \"warmup_epochs\": 0.0, \"weight_decay\": 0.0005}, \"unstructured\": 0.4}", "stage": "explore", "rung": 1, "retries": 0}');
INSERT INTO "trial_user_attributes" VALUES(5,2,'work','{"key": "bb40de409ed9e818", "candidate": "{\"architecture\": {\"family\": \"resnet\", \"options\": {\"depths\": [1, 1, 1], \"shortcut\": \"projection\", \"strides\": [1, 2, 2], \"widths\": [16, 32, 64]}}, \"bits\": {\"activations\": 4, \"layers\": {\"fc\": [8, 8], \"stem\": [8, 8]}, \"numbers\": 8, \"per_channel\": true, \"weights\": 3}, \"seed\": 1, \"structured\": 0.0, \"train\": {\"batch_size\": 64, \"clip_norm\": 0.0, \"crop\": 1, \"cutmix\": 0.0, \"cutout\": 0, \"distillation\": 0.0, \"ema_decay\": 0.0, \"epochs\": 0.5, \"flip\": false, \"label_smoothing\": 0.0, \"learning_rate\": 0.2, \"mixup\": 0.0, \"momentum\": 0.9, \"optimiser\": \"sgd\", \"schedule\": \"onecycle\", \"taught_epochs\": 0, \"temperature\": 4.0, \"warmup_epochs\": 0.1, \"weight_decay\": 0.0005}, \"tune\": {\"batch_size\": 64, \"clip_norm\": 0.0, \"crop\": 1, \"cutmix\": 0.0, \"cutout\": 0, \"distillation\": 0.0, \"ema_decay\": 0.0, \"epochs\": 0.5, \"flip\": false, \"label_smoothing\": 0.0, \"learning_rate\": 0.05, \"mixup\": 0.0, \"momentum\": 0.9, \"optimiser\": \"sgd\", \"schedule\": \"onecycle\", \"taught_epochs\": 0, \"temperature\": 4.0, \"warmup_epochs\": 0.0, \"weight_decay\": 0.0005}, \"unstructured\": 0.4}", "stage": "explore", "rung": 1, "worker": "machine:23721", "retries": 0, "estimate": {"params": 0.11898551842992, "ops": 0.25322715842414084, "macs": 763520, "weights": 77072}}');
INSERT INTO "trial_user_attributes" VALUES(6,2,'result','"{\"correct\": 253, \"total\": 287, \"price\": {\"params\": 0.11887652082207989, \"ops\": 0.25322715842414084, \"macs\": 763520, \"weights\": 77072}, \"curve\": [[0.5, 0.7317073170731707], [1.0, 0.8815331010452961]], \"images\": 575, \"seconds\": 1.309, \"model\": \"trials/bb40de409ed9e818/model.pt\"}"');
INSERT INTO "trial_user_attributes" VALUES(7,3,'work','{"key": "819e08ab81c255b5", "candidate": "{\"architecture\": {\"family\": \"resnet\", \"options\": {\"depths\": [2, 1, 1], \"shortcut\": \"projection\", \"strides\": [1, 2, 2], \"widths\": [4, 8, 20]}}, \"bits\": {\"activations\": 4, \"layers\": {\"fc\": [4, 4], \"stem\": [8, 8]}, \"numbers\": 8, \"per_channel\": true, \"weights\": 3}, \"seed\": 1, \"structured\": 0.3, \"train\": {\"batch_size\": 64, \"clip_norm\": 0.0, \"crop\": 1, \"cutmix\": 0.0, \"cutout\": 0, \"distillation\": 0.0, \"ema_decay\": 0.0, \"epochs\": 0.5, \"flip\": false, \"label_smoothing\": 0.1, \"learning_rate\": 0.27, \"mixup\": 0.2, \"momentum\": 0.9, \"optimiser\": \"sgd\", \"schedule\": \"onecycle\", \"taught_epochs\": 0, \"temperature\": 4.0, \"warmup_epochs\": 0.1, \"weight_decay\": 0.0001}, \"tune\": {\"batch_size\": 64, \"clip_norm\": 0.0, \"crop\": 1, \"cutmix\": 0.0, \"cutout\": 0, \"distillation\": 0.0, \"ema_decay\": 0.0, \"epochs\": 0.25, \"flip\": false, \"label_smoothing\": 0.1, \"learning_rate\": 0.087, \"mixup\": 0.2, \"momentum\": 0.9, \"optimiser\": \"sgd\", \"schedule\": \"onecycle\", \"taught_epochs\": 0, \"temperature\": 4.0, \"warmup_epochs\": 0.0, \"weight_decay\": 0.0001}, \"unstructured\": 0.56}", "stage": "explore", "rung": 0, "worker": "machine:23721", "retries": 0, "estimate": {"params": 0.004301515034596288, "ops": 0.017604515926236377, "macs": 52153, "weights": 4836}}');
INSERT INTO "trial_user_attributes" VALUES(8,3,'result','"{\"correct\": 56, \"total\": 287, \"price\": {\"params\": 0.004301515034596288, \"ops\": 0.017604515926236377, \"macs\": 52153, \"weights\": 4836}, \"curve\": [[0.5, 0.1951219512195122]], \"images\": 575, \"seconds\": 0.155, \"model\": null}"');
INSERT INTO "trial_user_attributes" VALUES(9,4,'work','{"key": "942e35ff0e410021", "candidate": "{\"architecture\": {\"family\": \"resnet\", \"options\": {\"depths\": [1, 1, 2], \"shortcut\": \"projection\", \"strides\": [1, 2, 2], \"widths\": [12, 18, 44]}}, \"bits\": {\"activations\": 5, \"layers\": {\"fc\": [8, 8], \"stages.0\": [4, 6], \"stages.2\": [2, 4], \"stem\": [5, 5]}, \"numbers\": 8, \"per_channel\": true, \"weights\": 3}, \"seed\": 1, \"structured\": 0.0, \"train\": {\"batch_size\": 64, \"clip_norm\": 0.0, \"crop\": 1, \"cutmix\": 0.0, \"cutout\": 0, \"distillation\": 0.0, \"ema_decay\": 0.0, \"epochs\": 0.5, \"flip\": false, \"label_smoothing\": 0.05, \"learning_rate\": 0.05, \"mixup\": 0.2, \"momentum\": 0.9, \"optimiser\": \"sgd\", \"schedule\": \"onecycle\", \"taught_epochs\": 0, \"temperature\": 4.0, \"warmup_epochs\": 0.1, \"weight_decay\": 0.0005}, \"tune\": {\"batch_size\": 64, \"clip_norm\": 0.0, \"crop\": 1, \"cutmix\": 0.0, \"cutout\": 0, \"distillation\": 0.0, \"ema_decay\": 0.0, \"epochs\": 0.5, \"flip\": false, \"label_smoothing\": 0.05, \"learning_rate\": 0.1, \"mixup\": 0.2, \"momentum\": 0.9, \"optimiser\": \"sgd\", \"schedule\": \"onecycle\", \"taught_epochs\": 0, \"temperature\": 4.0, \"warmup_epochs\": 0.0, \"weight_decay\": 0.0005}, \"unstructured\": 0.0}", "stage": "explore", "rung": 0, "worker": "machine:23721", "retries": 0, "estimate": {"params": 0.12603210124237982, "ops": 0.1966680637049455, "macs": 495224, "weights": 68408}}');
INSERT INTO "trial_user_attributes" VALUES(10,4,'result','"{\"correct\": 98, \"total\": 287, \"price\": {\"params\": 0.12603210124237982, \"ops\": 0.1966680637049455, \"macs\": 495224, \"weights\": 68408}, \"curve\": [[0.5, 0.34146341463414637]], \"images\": 575, \"seconds\": 0.146, \"model\": null}"');
INSERT INTO "trial_user_attributes" VALUES(11,5,'todo','{"candidate": "{\"architecture\": {\"family\": \"resnet\", \"options\": {\"depths\": [1, 1, 2], \"shortcut\": \"projection\", \"strides\": [1, 2, 2], \"widths\": [12, 18, 44]}}, \"bits\": {\"activations\": 5, \"layers\": {\"fc\": [8, 8], \"stages.0\": [4, 6], \"stages.2\": [2, 4], \"stem\": [5, 5]}, \"numbers\": 8, \"per_channel\": true, \"weights\": 3}, \"seed\": 1, \"structured\": 0.0, \"train\": {\"batch_size\": 64, \"clip_norm\": 0.0, \"crop\": 1, \"cutmix\": 0.0, \"cutout\": 0, \"distillation\": 0.0, \"ema_decay\": 0.0, \"epochs\": 0.5, \"flip\": false, \"label_smoothing\": 0.05, \"learning_rate\": 0.05, \"mixup\": 0.2, \"momentum\": 0.9, \"optimiser\": \"sgd\", \"schedule\": \"onecycle\", \"taught_epochs\": 0, \"temperature\": 4.0, \"warmup_epochs\": 0.1, \"weight_decay\": 0.0005}, \"tune\": {\"batch_size\": 64, \"clip_norm\": 0.0, \"crop\": 1, \"cutmix\": 0.0, \"cutout\": 0, \"distillation\": 0.0, \"ema_decay\": 0.0, \"epochs\": 0.5, \"flip\": false, \"label_smoothing\": 0.05, \"learning_rate\": 0.1, \"mixup\": 0.2, \"momentum\": 0.9, \"optimiser\": \"sgd\", \"schedule\": \"onecycle\", \"taught_epochs\": 0, \"temperature\": 4.0, \"warmup_epochs\": 0.0, \"weight_decay\": 0.0005}, \"unstructured\": 0.0}", "stage": "explore", "rung": 1, "retries": 0}');
INSERT INTO "trial_user_attributes" VALUES(12,5,'work','{"key": "942e35ff0e410021", "candidate": "{\"architecture\": {\"family\": \"resnet\", \"options\": {\"depths\": [1, 1, 2], \"shortcut\": \"projection\", \"strides\": [1, 2, 2], \"widths\": [12, 18, 44]}}, \"bits\": {\"activations\": 5, \"layers\": {\"fc\": [8, 8], \"stages.0\": [4, 6], \"stages.2\": [2, 4], \"stem\": [5, 5]}, \"numbers\": 8, \"per_channel\": true, \"weights\": 3}, \"seed\": 1, \"structured\": 0.0, \"train\": {\"batch_size\": 64, \"clip_norm\": 0.0, \"crop\": 1, \"cutmix\": 0.0, \"cutout\": 0, \"distillation\": 0.0, \"ema_decay\": 0.0, \"epochs\": 0.5, \"flip\": false, \"label_smoothing\": 0.05, \"learning_rate\": 0.05, \"mixup\": 0.2, \"momentum\": 0.9, \"optimiser\": \"sgd\", \"schedule\": \"onecycle\", \"taught_epochs\": 0, \"temperature\": 4.0, \"warmup_epochs\": 0.1, \"weight_decay\": 0.0005}, \"tune\": {\"batch_size\": 64, \"clip_norm\": 0.0, \"crop\": 1, \"cutmix\": 0.0, \"cutout\": 0, \"distillation\": 0.0, \"ema_decay\": 0.0, \"epochs\": 0.5, \"flip\": false, \"label_smoothing\": 0.05, \"learning_rate\": 0.1, \"mixup\": 0.2, \"momentum\": 0.9, \"optimiser\": \"sgd\", \"schedule\": \"onecycle\", \"taught_epochs\": 0, \"temperature\": 4.0, \"warmup_epochs\": 0.0, \"weight_decay\": 0.0005}, \"unstructured\": 0.0}", "stage": "explore", "rung": 1, "worker": "machine:23721", "retries": 0, "estimate": {"params": 0.12603210124237982, "ops": 0.1966680637049455, "macs": 495224, "weights": 68408}}');
INSERT INTO "trial_user_attributes" VALUES(13,5,'result','"{\"correct\": 158, \"total\": 287, \"price\": {\"params\": 0.08306566221673484, \"ops\": 0.1966680637049455, \"macs\": 495224, \"weights\": 68408}, \"curve\": [[0.5, 0.34146341463414637], [1.0, 0.5505226480836237]], \"images\": 575, \"seconds\": 0.652, \"model\": \"trials/942e35ff0e410021/model.pt\"}"');
INSERT INTO "trial_user_attributes" VALUES(14,6,'todo','{"candidate": "{\"architecture\": {\"family\": \"resnet\", \"options\": {\"depths\": [2, 1, 1], \"shortcut\": \"projection\", \"strides\": [1, 2, 2], \"widths\": [4, 8, 20]}}, \"bits\": {\"activations\": 4, \"layers\": {\"fc\": [4, 4], \"stem\": [8, 8]}, \"numbers\": 8, \"per_channel\": true, \"weights\": 3}, \"seed\": 1, \"structured\": 0.3, \"train\": {\"batch_size\": 64, \"clip_norm\": 0.0, \"crop\": 1, \"cutmix\": 0.0, \"cutout\": 0, \"distillation\": 0.0, \"ema_decay\": 0.0, \"epochs\": 0.5, \"flip\": false, \"label_smoothing\": 0.1, \"learning_rate\": 0.27, \"mixup\": 0.2, \"momentum\": 0.9, \"optimiser\": \"sgd\", \"schedule\": \"onecycle\", \"taught_epochs\": 0, \"temperature\": 4.0, \"warmup_epochs\": 0.1, \"weight_decay\": 0.0001}, \"tune\": {\"batch_size\": 64, \"clip_norm\": 0.0, \"crop\": 1, \"cutmix\": 0.0, \"cutout\": 0, \"distillation\": 0.0, \"ema_decay\": 0.0, \"epochs\": 0.25, \"flip\": false, \"label_smoothing\": 0.1, \"learning_rate\": 0.087, \"mixup\": 0.2, \"momentum\": 0.9, \"optimiser\": \"sgd\", \"schedule\": \"onecycle\", \"taught_epochs\": 0, \"temperature\": 4.0, \"warmup_epochs\": 0.0, \"weight_decay\": 0.0001}, \"unstructured\": 0.56}", "stage": "explore", "rung": 1, "retries": 0}');
INSERT INTO "trial_user_attributes" VALUES(15,6,'work','{"key": "819e08ab81c255b5", "candidate": "{\"architecture\": {\"family\": \"resnet\", \"options\": {\"depths\": [2, 1, 1], \"shortcut\": \"projection\", \"strides\": [1, 2, 2], \"widths\": [4, 8, 20]}}, \"bits\": {\"activations\": 4, \"layers\": {\"fc\": [4, 4], \"stem\": [8, 8]}, \"numbers\": 8, \"per_channel\": true, \"weights\": 3}, \"seed\": 1, \"structured\": 0.3, \"train\": {\"batch_size\": 64, \"clip_norm\": 0.0, \"crop\": 1, \"cutmix\": 0.0, \"cutout\": 0, \"distillation\": 0.0, \"ema_decay\": 0.0, \"epochs\": 0.5, \"flip\": false, \"label_smoothing\": 0.1, \"learning_rate\": 0.27, \"mixup\": 0.2, \"momentum\": 0.9, \"optimiser\": \"sgd\", \"schedule\": \"onecycle\", \"taught_epochs\": 0, \"temperature\": 4.0, \"warmup_epochs\": 0.1, \"weight_decay\": 0.0001}, \"tune\": {\"batch_size\": 64, \"clip_norm\": 0.0, \"crop\": 1, \"cutmix\": 0.0, \"cutout\": 0, \"distillation\": 0.0, \"ema_decay\": 0.0, \"epochs\": 0.25, \"flip\": false, \"label_smoothing\": 0.1, \"learning_rate\": 0.087, \"mixup\": 0.2, \"momentum\": 0.9, \"optimiser\": \"sgd\", \"schedule\": \"onecycle\", \"taught_epochs\": 0, \"temperature\": 4.0, \"warmup_epochs\": 0.0, \"weight_decay\": 0.0001}, \"unstructured\": 0.56}", "stage": "explore", "rung": 1, "worker": "machine:23721", "retries": 0, "estimate": {"params": 0.004301515034596288, "ops": 0.017604515926236377, "macs": 52153, "weights": 4836}}');
INSERT INTO "trial_user_attributes" VALUES(16,6,'result','"{\"correct\": 60, \"total\": 287, \"price\": {\"params\": 0.004785123594927592, \"ops\": 0.0216922935875943, \"macs\": 63946, \"weights\": 4756}, \"curve\": [[0.5, 0.1951219512195122], [0.75, 0.29965156794425085], [1.0, 0.20905923344947736]], \"images\": 576, \"seconds\": 3.027, \"model\": \"trials/819e08ab81c255b5/model.pt\"}"');
INSERT INTO "trial_user_attributes" VALUES(17,7,'todo','{"candidate": "{\"architecture\": {\"family\": \"resnet\", \"options\": {\"depths\": [1, 1, 1], \"shortcut\": \"projection\", \"strides\": [1, 2, 2], \"widths\": [16, 32, 64]}}, \"bits\": {\"activations\": 4, \"layers\": {\"fc\": [8, 8], \"stages.1.0.shortcut.conv\": [4, 5], \"stem\": [8, 8]}, \"numbers\": 8, \"per_channel\": true, \"weights\": 3}, \"seed\": 1, \"structured\": 0.0, \"train\": {\"batch_size\": 64, \"clip_norm\": 0.0, \"crop\": 1, \"cutmix\": 0.0, \"cutout\": 0, \"distillation\": 0.0, \"ema_decay\": 0.0, \"epochs\": 0.5, \"flip\": false, \"label_smoothing\": 0.0, \"learning_rate\": 0.2, \"mixup\": 0.0, \"momentum\": 0.9, \"optimiser\": \"sgd\", \"schedule\": \"onecycle\", \"taught_epochs\": 0, \"temperature\": 4.0, \"warmup_epochs\": 0.1, \"weight_decay\": 0.0005}, \"tune\": {\"batch_size\": 64, \"clip_norm\": 0.0, \"crop\": 1, \"cutmix\": 0.0, \"cutout\": 0, \"distillation\": 0.0, \"ema_decay\": 0.0, \"epochs\": 0.5, \"flip\": false, \"label_smoothing\": 0.0, \"learning_rate\": 0.05, \"mixup\": 0.0, \"momentum\": 0.9, \"optimiser\": \"sgd\", \"schedule\": \"onecycle\", \"taught_epochs\": 0, \"temperature\": 4.0, \"warmup_epochs\": 0.0, \"weight_decay\": 0.0005}, \"unstructured\": 0.4}", "stage": "refine", "rung": 0, "retries": 0}');
INSERT INTO "trial_user_attributes" VALUES(18,8,'todo','{"candidate": "{\"architecture\": {\"family\": \"resnet\", \"options\": {\"depths\": [1, 1, 1], \"shortcut\": \"projection\", \"strides\": [1, 2, 2], \"widths\": [16, 32, 64]}}, \"bits\": {\"activations\": 4, \"layers\": {\"fc\": [8, 8], \"stem\": [8, 8]}, \"numbers\": 8, \"per_channel\": true, \"weights\": 3}, \"seed\": 1, \"structured\": 0.0, \"train\": {\"batch_size\": 64, \"clip_norm\": 0.0, \"crop\": 1, \"cutmix\": 0.0, \"cutout\": 0, \"distillation\": 0.0, \"ema_decay\": 0.0, \"epochs\": 0.5, \"flip\": false, \"label_smoothing\": 0.0, \"learning_rate\": 0.2, \"mixup\": 0.0, \"momentum\": 0.9, \"optimiser\": \"sgd\", \"schedule\": \"onecycle\", \"taught_epochs\": 0, \"temperature\": 4.0, \"warmup_epochs\": 0.1, \"weight_decay\": 0.0005}, \"tune\": {\"batch_size\": 64, \"clip_norm\": 0.0, \"crop\": 1, \"cutmix\": 0.0, \"cutout\": 0, \"distillation\": 0.0, \"ema_decay\": 0.0, \"epochs\": 0.5, \"flip\": false, \"label_smoothing\": 0.0, \"learning_rate\": 0.05, \"mixup\": 0.0, \"momentum\": 0.9, \"optimiser\": \"sgd\", \"schedule\": \"onecycle\", \"taught_epochs\": 0, \"temperature\": 4.0, \"warmup_epochs\": 0.0, \"weight_decay\": 0.0005}, \"unstructured\": 0.32}", "stage": "refine", "rung": 0, "retries": 0}');
INSERT INTO "trial_user_attributes" VALUES(19,7,'work','{"key": "1533f1f2d923f523", "candidate": "{\"architecture\": {\"family\": \"resnet\", \"options\": {\"depths\": [1, 1, 1], \"shortcut\": \"projection\", \"strides\": [1, 2, 2], \"widths\": [16, 32, 64]}}, \"bits\": {\"activations\": 4, \"layers\": {\"fc\": [8, 8], \"stages.1.0.shortcut.conv\": [4, 5], \"stem\": [8, 8]}, \"numbers\": 8, \"per_channel\": true, \"weights\": 3}, \"seed\": 1, \"structured\": 0.0, \"train\": {\"batch_size\": 64, \"clip_norm\": 0.0, \"crop\": 1, \"cutmix\": 0.0, \"cutout\": 0, \"distillation\": 0.0, \"ema_decay\": 0.0, \"epochs\": 0.5, \"flip\": false, \"label_smoothing\": 0.0, \"learning_rate\": 0.2, \"mixup\": 0.0, \"momentum\": 0.9, \"optimiser\": \"sgd\", \"schedule\": \"onecycle\", \"taught_epochs\": 0, \"temperature\": 4.0, \"warmup_epochs\": 0.1, \"weight_decay\": 0.0005}, \"tune\": {\"batch_size\": 64, \"clip_norm\": 0.0, \"crop\": 1, \"cutmix\": 0.0, \"cutout\": 0, \"distillation\": 0.0, \"ema_decay\": 0.0, \"epochs\": 0.5, \"flip\": false, \"label_smoothing\": 0.0, \"learning_rate\": 0.05, \"mixup\": 0.0, \"momentum\": 0.9, \"optimiser\": \"sgd\", \"schedule\": \"onecycle\", \"taught_epochs\": 0, \"temperature\": 4.0, \"warmup_epochs\": 0.0, \"weight_decay\": 0.0005}, \"unstructured\": 0.4}", "stage": "refine", "rung": 0, "worker": "machine:23721", "retries": 0, "estimate": {"params": 0.11923245106361087, "ops": 0.25389773679798827, "macs": 763520, "weights": 77072}}');
INSERT INTO "trial_user_attributes" VALUES(20,7,'result','"{\"correct\": 254, \"total\": 287, \"price\": {\"params\": 0.11933067752141369, \"ops\": 0.25389773679798827, \"macs\": 763520, \"weights\": 77072}, \"curve\": [[1.0, 0.8850174216027874]], \"images\": 575, \"seconds\": 0.584, \"model\": \"trials/1533f1f2d923f523/model.pt\"}"');
INSERT INTO "trial_user_attributes" VALUES(21,8,'work','{"key": "3bf82c287fa4c27d", "candidate": "{\"architecture\": {\"family\": \"resnet\", \"options\": {\"depths\": [1, 1, 1], \"shortcut\": \"projection\", \"strides\": [1, 2, 2], \"widths\": [16, 32, 64]}}, \"bits\": {\"activations\": 4, \"layers\": {\"fc\": [8, 8], \"stem\": [8, 8]}, \"numbers\": 8, \"per_channel\": true, \"weights\": 3}, \"seed\": 1, \"structured\": 0.0, \"train\": {\"batch_size\": 64, \"clip_norm\": 0.0, \"crop\": 1, \"cutmix\": 0.0, \"cutout\": 0, \"distillation\": 0.0, \"ema_decay\": 0.0, \"epochs\": 0.5, \"flip\": false, \"label_smoothing\": 0.0, \"learning_rate\": 0.2, \"mixup\": 0.0, \"momentum\": 0.9, \"optimiser\": \"sgd\", \"schedule\": \"onecycle\", \"taught_epochs\": 0, \"temperature\": 4.0, \"warmup_epochs\": 0.1, \"weight_decay\": 0.0005}, \"tune\": {\"batch_size\": 64, \"clip_norm\": 0.0, \"crop\": 1, \"cutmix\": 0.0, \"cutout\": 0, \"distillation\": 0.0, \"ema_decay\": 0.0, \"epochs\": 0.5, \"flip\": false, \"label_smoothing\": 0.0, \"learning_rate\": 0.05, \"mixup\": 0.0, \"momentum\": 0.9, \"optimiser\": \"sgd\", \"schedule\": \"onecycle\", \"taught_epochs\": 0, \"temperature\": 4.0, \"warmup_epochs\": 0.0, \"weight_decay\": 0.0005}, \"unstructured\": 0.32}", "stage": "refine", "rung": 0, "worker": "machine:23721", "retries": 0, "estimate": {"params": 0.13410602669959099, "ops": 0.25322715842414084, "macs": 763520, "weights": 77072}}');
INSERT INTO "trial_user_attributes" VALUES(22,8,'result','"{\"correct\": 250, \"total\": 287, \"price\": {\"params\": 0.13320375800601897, \"ops\": 0.25322715842414084, \"macs\": 763520, \"weights\": 77072}, \"curve\": [[1.0, 0.8710801393728222]], \"images\": 575, \"seconds\": 0.572, \"model\": \"trials/3bf82c287fa4c27d/model.pt\"}"');
INSERT INTO "trial_user_attributes" VALUES(23,9,'todo','{"candidate": "{\"architecture\": {\"family\": \"resnet\", \"options\": {\"depths\": [1, 1, 1], \"shortcut\": \"projection\", \"strides\": [1, 2, 2], \"widths\": [16, 32, 64]}}, \"bits\": {\"activations\": 4, \"layers\": {\"fc\": [8, 8], \"stages.1.0.shortcut.conv\": [4, 5], \"stages.2.0.shortcut.conv\": [4, 5], \"stem\": [8, 8]}, \"numbers\": 8, \"per_channel\": true, \"weights\": 3}, \"seed\": 1, \"structured\": 0.0, \"train\": {\"batch_size\": 64, \"clip_norm\": 0.0, \"crop\": 1, \"cutmix\": 0.0, \"cutout\": 0, \"distillation\": 0.0, \"ema_decay\": 0.0, \"epochs\": 0.5, \"flip\": false, \"label_smoothing\": 0.0, \"learning_rate\": 0.2, \"mixup\": 0.0, \"momentum\": 0.9, \"optimiser\": \"sgd\", \"schedule\": \"onecycle\", \"taught_epochs\": 0, \"temperature\": 4.0, \"warmup_epochs\": 0.1, \"weight_decay\": 0.0005}, \"tune\": {\"batch_size\": 64, \"clip_norm\": 0.0, \"crop\": 1, \"cutmix\": 0.0, \"cutout\": 0, \"distillation\": 0.0, \"ema_decay\": 0.0, \"epochs\": 0.5, \"flip\": false, \"label_smoothing\": 0.0, \"learning_rate\": 0.05, \"mixup\": 0.0, \"momentum\": 0.9, \"optimiser\": \"sgd\", \"schedule\": \"onecycle\", \"taught_epochs\": 0, \"temperature\": 4.0, \"warmup_epochs\": 0.0, \"weight_decay\": 0.0005}, \"unstructured\": 0.4}", "stage": "refine", "rung": 0, "retries": 0}');
INSERT INTO "trial_user_attributes" VALUES(24,10,'todo','{"candidate": "{\"architecture\": {\"family\": \"resnet\", \"options\": {\"depths\": [1, 1, 1], \"shortcut\": \"projection\", \"strides\": [1, 2, 2], \"widths\": [16, 32, 64]}}, \"bits\": {\"activations\": 4, \"layers\": {\"fc\": [8, 8], \"stages.1.0.shortcut.conv\": [4, 5], \"stem\": [8, 8]}, \"numbers\": 8, \"per_channel\": true, \"weights\": 3}, \"seed\": 1, \"structured\": 0.0, \"train\": {\"batch_size\": 64, \"clip_norm\": 0.0, \"crop\": 1, \"cutmix\": 0.0, \"cutout\": 0, \"distillation\": 0.0, \"ema_decay\": 0.0, \"epochs\": 0.5, \"flip\": false, \"label_smoothing\": 0.0, \"learning_rate\": 0.2, \"mixup\": 0.0, \"momentum\": 0.9, \"optimiser\": \"sgd\", \"schedule\": \"onecycle\", \"taught_epochs\": 0, \"temperature\": 4.0, \"warmup_epochs\": 0.1, \"weight_decay\": 0.0005}, \"tune\": {\"batch_size\": 64, \"clip_norm\": 0.0, \"crop\": 1, \"cutmix\": 0.0, \"cutout\": 0, \"distillation\": 0.0, \"ema_decay\": 0.0, \"epochs\": 0.5, \"flip\": false, \"label_smoothing\": 0.0, \"learning_rate\": 0.05, \"mixup\": 0.0, \"momentum\": 0.9, \"optimiser\": \"sgd\", \"schedule\": \"onecycle\", \"taught_epochs\": 0, \"temperature\": 4.0, \"warmup_epochs\": 0.0, \"weight_decay\": 0.0005}, \"unstructured\": 0.32}", "stage": "refine", "rung": 0, "retries": 0}');
INSERT INTO "trial_user_attributes" VALUES(25,9,'work','{"key": "04a6c9356c654ae8", "candidate": "{\"architecture\": {\"family\": \"resnet\", \"options\": {\"depths\": [1, 1, 1], \"shortcut\": \"projection\", \"strides\": [1, 2, 2], \"widths\": [16, 32, 64]}}, \"bits\": {\"activations\": 4, \"layers\": {\"fc\": [8, 8], \"stages.1.0.shortcut.conv\": [4, 5], \"stages.2.0.shortcut.conv\": [4, 5], \"stem\": [8, 8]}, \"numbers\": 8, \"per_channel\": true, \"weights\": 3}, \"seed\": 1, \"structured\": 0.0, \"train\": {\"batch_size\": 64, \"clip_norm\": 0.0, \"crop\": 1, \"cutmix\": 0.0, \"cutout\": 0, \"distillation\": 0.0, \"ema_decay\": 0.0, \"epochs\": 0.5, \"flip\": false, \"label_smoothing\": 0.0, \"learning_rate\": 0.2, \"mixup\": 0.0, \"momentum\": 0.9, \"optimiser\": \"sgd\", \"schedule\": \"onecycle\", \"taught_epochs\": 0, \"temperature\": 4.0, \"warmup_epochs\": 0.1, \"weight_decay\": 0.0005}, \"tune\": {\"batch_size\": 64, \"clip_norm\": 0.0, \"crop\": 1, \"cutmix\": 0.0, \"cutout\": 0, \"distillation\": 0.0, \"ema_decay\": 0.0, \"epochs\": 0.5, \"flip\": false, \"label_smoothing\": 0.0, \"learning_rate\": 0.05, \"mixup\": 0.0, \"momentum\": 0.9, \"optimiser\": \"sgd\", \"schedule\": \"onecycle\", \"taught_epochs\": 0, \"temperature\": 4.0, \"warmup_epochs\": 0.0, \"weight_decay\": 0.0005}, \"unstructured\": 0.4}", "stage": "refine", "rung": 0, "worker": "machine:23721", "retries": 0, "estimate": {"params": 0.12022018159837436, "ops": 0.2545683151718357, "macs": 763520, "weights": 77072}}');
INSERT INTO "trial_user_attributes" VALUES(26,9,'result','"{\"correct\": 254, \"total\": 287, \"price\": {\"params\": 0.12098091416518764, \"ops\": 0.2545683151718357, \"macs\": 763520, \"weights\": 77072}, \"curve\": [[1.0, 0.8850174216027874]], \"images\": 575, \"seconds\": 0.624, \"model\": \"trials/04a6c9356c654ae8/model.pt\"}"');
INSERT INTO "trial_user_attributes" VALUES(27,10,'work','{"key": "196296b62b186fe4", "candidate": "{\"architecture\": {\"family\": \"resnet\", \"options\": {\"depths\": [1, 1, 1], \"shortcut\": \"projection\", \"strides\": [1, 2, 2], \"widths\": [16, 32, 64]}}, \"bits\": {\"activations\": 4, \"layers\": {\"fc\": [8, 8], \"stages.1.0.shortcut.conv\": [4, 5], \"stem\": [8, 8]}, \"numbers\": 8, \"per_channel\": true, \"weights\": 3}, \"seed\": 1, \"structured\": 0.0, \"train\": {\"batch_size\": 64, \"clip_norm\": 0.0, \"crop\": 1, \"cutmix\": 0.0, \"cutout\": 0, \"distillation\": 0.0, \"ema_decay\": 0.0, \"epochs\": 0.5, \"flip\": false, \"label_smoothing\": 0.0, \"learning_rate\": 0.2, \"mixup\": 0.0, \"momentum\": 0.9, \"optimiser\": \"sgd\", \"schedule\": \"onecycle\", \"taught_epochs\": 0, \"temperature\": 4.0, \"warmup_epochs\": 0.1, \"weight_decay\": 0.0005}, \"tune\": {\"batch_size\": 64, \"clip_norm\": 0.0, \"crop\": 1, \"cutmix\": 0.0, \"cutout\": 0, \"distillation\": 0.0, \"ema_decay\": 0.0, \"epochs\": 0.5, \"flip\": false, \"label_smoothing\": 0.0, \"learning_rate\": 0.05, \"mixup\": 0.0, \"momentum\": 0.9, \"optimiser\": \"sgd\", \"schedule\": \"onecycle\", \"taught_epochs\": 0, \"temperature\": 4.0, \"warmup_epochs\": 0.0, \"weight_decay\": 0.0005}, \"unstructured\": 0.32}", "stage": "refine", "rung": 0, "worker": "machine:23721", "retries": 0, "estimate": {"params": 0.13438588368444065, "ops": 0.25389773679798827, "macs": 763520, "weights": 77072}}');
INSERT INTO "trial_user_attributes" VALUES(28,10,'result','"{\"correct\": 247, \"total\": 287, \"price\": {\"params\": 0.13366354142552153, \"ops\": 0.25389773679798827, \"macs\": 763520, \"weights\": 77072}, \"curve\": [[1.0, 0.8606271777003485]], \"images\": 575, \"seconds\": 0.641, \"model\": \"trials/196296b62b186fe4/model.pt\"}"');
CREATE TABLE trial_values (
	trial_value_id INTEGER NOT NULL, 
	trial_id INTEGER NOT NULL, 
	objective INTEGER NOT NULL, 
	value FLOAT, 
	value_type VARCHAR(7) NOT NULL, 
	PRIMARY KEY (trial_value_id), 
	UNIQUE (trial_id, objective), 
	FOREIGN KEY(trial_id) REFERENCES trials (trial_id)
);
INSERT INTO "trial_values" VALUES(1,1,0,3.72212676854060842135e-01,'FINITE');
INSERT INTO "trial_values" VALUES(2,2,0,3.72103679246220730991e-01,'FINITE');
INSERT INTO "trial_values" VALUES(3,3,0,2.1906030960832663379e-02,'FINITE');
INSERT INTO "trial_values" VALUES(4,4,0,3.22700164947325340847e-01,'FINITE');
INSERT INTO "trial_values" VALUES(5,5,0,2.79733725921680331794e-01,'FINITE');
INSERT INTO "trial_values" VALUES(6,6,0,2.6477417182521893052e-02,'FINITE');
INSERT INTO "trial_values" VALUES(7,7,0,3.73228414319401957666e-01,'FINITE');
INSERT INTO "trial_values" VALUES(8,8,0,3.86430916430159809848e-01,'FINITE');
INSERT INTO "trial_values" VALUES(9,9,0,3.75549229337023338093e-01,'FINITE');
INSERT INTO "trial_values" VALUES(10,10,0,3.87561278223509830809e-01,'FINITE');
CREATE TABLE trials (
	trial_id INTEGER NOT NULL, 
	number INTEGER, 
	study_id INTEGER, 
	state VARCHAR(8) NOT NULL, 
	datetime_start DATETIME, 
	datetime_complete DATETIME, 
	PRIMARY KEY (trial_id), 
	FOREIGN KEY(study_id) REFERENCES studies (study_id)
);
INSERT INTO "trials" VALUES(1,0,1,'COMPLETE','2026-11-26 01:36:19.824563','2026-11-26 01:36:26.528989');
INSERT INTO "trials" VALUES(2,1,1,'COMPLETE','2026-11-26 01:36:26.576419','2026-11-26 01:36:27.915851');
INSERT INTO "trials" VALUES(3,2,1,'COMPLETE','2026-11-26 01:36:27.952644','2026-11-26 01:36:28.169305');
INSERT INTO "trials" VALUES(4,3,1,'COMPLETE','2026-11-26 01:36:28.209864','2026-11-26 01:36:28.425669');
INSERT INTO "trials" VALUES(5,4,1,'COMPLETE','2026-11-26 01:36:28.475371','2026-11-26 01:36:29.164380');
INSERT INTO "trials" VALUES(6,5,1,'COMPLETE','2026-11-26 01:36:29.755088','2026-11-26 01:36:32.810285');
INSERT INTO "trials" VALUES(7,6,1,'COMPLETE','2026-11-26 01:36:33.562013','2026-11-26 01:36:34.177138');
INSERT INTO "trials" VALUES(8,7,1,'COMPLETE','2026-11-26 01:36:34.208649','2026-11-26 01:36:34.814669');
INSERT INTO "trials" VALUES(9,8,1,'COMPLETE','2026-11-26 01:36:35.476976','2026-11-26 01:36:36.137688');
INSERT INTO "trials" VALUES(10,9,1,'COMPLETE','2026-11-26 01:36:36.168726','2026-11-26 01:36:36.837613');
CREATE TABLE version_info (
	version_info_id INTEGER NOT NULL, 
	schema_version INTEGER, 
	library_version VARCHAR(256), 
	PRIMARY KEY (version_info_id), 
	CHECK (version_info_id=1)
);
INSERT INTO "version_info" VALUES(1,12,'5.0.0');
CREATE UNIQUE INDEX ix_studies_study_name ON studies (study_name);
CREATE INDEX ix_trials_study_id ON trials (study_id);
COMMIT;
